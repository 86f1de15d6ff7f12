"""The settings of an evaluation, for `HfArgumentParser`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES, check_baseline_name
from hf_l3rs.validation import MAX_SEED, Range, check_fields, check_not_empty


@dataclass(frozen=True)
class EvaluationArguments:
    """
    What is measured, and how long. Each field's help describes it.

    Raises:
        ConfigError: If a value is of a wrong type, out of its range, or there twice.
    """

    l3rs: str = field(metadata={"help": "Name, folder or Hub id of the L3RS."})
    setting: str = field(
        default="in domain", metadata={"help": "How the tasks relate to meta-training; for the card."}
    )
    baselines: list[str] = field(
        default_factory=lambda: ["Adam constant", "Adam cosine", "Linear probe"],
        metadata={
            "help": f"Any of {', '.join(BASELINES)}; or the dotted path of one of your own, of a class such as "
            "torch.optim.RAdam or of a hf_l3rs.evaluation.baselines.Baseline. Schedule-free AdamW needs the package "
            "schedulefree."
        },
    )
    horizons: list[int] = field(
        default_factory=lambda: [10, 20, 50, 100], metadata={"help": "Lengths of runs, in steps."}
    )
    num_tasks: int = field(default=16, metadata={"help": "Unseen tasks."})
    num_search_tasks: int = field(default=8, metadata={"help": "Validation tasks of the learning-rate search."})
    evaluate_every: int | None = field(
        default=None, metadata={"help": "Steps between points of the curves; at the end of runs only by default."}
    )
    seed: int = field(default=1000, metadata={"help": "Of the tasks."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Where rows, tables and pictures go."})
    search_dir: str | None = field(
        default=None,
        metadata={
            "help": "Where the learning-rate search is, or goes to; output_dir by default. Evaluations of several "
            "L3RS on the same model and data can share it."
        },
    )
    title: str = field(default="Fine-tuning", metadata={"help": "Above the picture."})

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("horizons", "num_tasks", "num_search_tasks", "evaluate_every"), Range(low=1))
        check_fields(self, {"seed": Range(low=0, high=MAX_SEED), **counts})
        check_not_empty(self, "l3rs", "output_dir", "search_dir")
        for name in ("baselines", "horizons"):
            values = getattr(self, name)
            repeated = [value for value, count in Counter(values).items() if count > 1]
            if repeated or not values:
                got = f"{', '.join(map(str, repeated))} twice" if repeated else "none"
                raise ConfigError(f"EvaluationArguments.{name} must be at least one, each once, got {got}.")
        for name in self.baselines:
            check_baseline_name(name)
