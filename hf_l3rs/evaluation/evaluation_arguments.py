"""The settings of an evaluation, for `HfArgumentParser`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.validation import MAX_SEED, Range, check_fields, check_not_empty


@dataclass(frozen=True)
class EvaluationArguments:
    """
    What is measured, and how long.

    Args:
        l3rs (`str`): Folder or Hub id of the L3RS.
        setting (`str`, *optional*, defaults to `"in domain"`): How the tasks relate to meta-training; for the card.
        baselines (`list[str]`, *optional*, defaults to both Adams):
            Any of BASELINES, at least one; `recipes/README.md` lists them. Those that come from a package of their own
            need `pip install hf_l3rs[rivals]`.
        include_untrained (`bool`, *optional*, defaults to `True`): Whether an untrained L3RS is measured as well.
        horizons (`list[int]`, *optional*, defaults to `[10, 20, 50, 100]`): Lengths of runs, in steps.
        data_limit_max_steps (`int`, *optional*, defaults to 50):
            Longest run whose data limit is measured, the loss with many passes over its batches; none with 0. Its
            search takes 124 times the steps of one run on each search task, (3 + 8 + 20) passes x 4 learning rates,
            where that of a baseline takes 11.
        num_tasks (`int`, *optional*, defaults to `16`): Unseen tasks.
        num_search_tasks (`int`, *optional*, defaults to `8`): Validation tasks of the learning-rate search.
        evaluate_every (`int`, *optional*): Steps between points of the curves; at the end of runs only by default.
        seed (`int`, *optional*, defaults to `1000`): Of the tasks.
        output_dir (`str`, *optional*, defaults to `"outputs/evaluation"`): Where rows, tables and pictures go.
        search_dir (`str`, *optional*):
            Where the learning-rate search is, or goes to; `output_dir` by default. Evaluations of several L3RS on the
            same model and data can share it.
        recalibrate (`bool`, *optional*, defaults to `False`):
            Whether every optimizer is evaluated with statistics of batch norm that are taken again over its training
            batches, which some optimizers ask for, and which helps all of them in short runs.
        title (`str`, *optional*, defaults to `"Fine-tuning"`): Above the picture.

    Raises:
        ConfigError: If a value is of a wrong type, out of its range, or there twice.
    """

    l3rs: str = field(metadata={"help": "Folder or Hub id of the L3RS."})
    setting: str = field(default="in domain", metadata={"help": "How the tasks relate to meta-training."})
    baselines: list[str] = field(default_factory=lambda: ["Adam constant", "Adam cosine"], metadata={
        "help": f"Any of {', '.join(BASELINES)}."})  # fmt: skip
    include_untrained: bool = field(default=True, metadata={"help": "Measure an untrained L3RS as well."})
    horizons: list[int] = field(default_factory=lambda: [10, 20, 50, 100], metadata={"help": "Lengths of runs."})
    data_limit_max_steps: int = field(default=50, metadata={"help": "Longest run with a data limit; 0 for none."})
    num_tasks: int = field(default=16, metadata={"help": "Unseen tasks."})
    num_search_tasks: int = field(default=8, metadata={"help": "Validation tasks of the learning-rate search."})
    evaluate_every: int | None = field(default=None, metadata={"help": "Steps between points of the curves."})
    seed: int = field(default=1000, metadata={"help": "Of the tasks."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Where tables and pictures go."})
    search_dir: str | None = field(default=None, metadata={"help": "Where the search is; output_dir by default."})
    recalibrate: bool = field(default=False, metadata={"help": "Take batch norm's statistics again, for everybody."})
    title: str = field(default="Fine-tuning", metadata={"help": "Above the picture."})

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("horizons", "num_tasks", "num_search_tasks", "evaluate_every"), Range(low=1))
        ranges = {"data_limit_max_steps": Range(low=0), "seed": Range(low=0, high=MAX_SEED), **counts}
        check_fields(self, {"baselines": BASELINES, **ranges})
        check_not_empty(self, "l3rs", "output_dir", "search_dir")
        for name in ("baselines", "horizons"):
            values = getattr(self, name)
            repeated = [value for value, count in Counter(values).items() if count > 1]
            if repeated or not values:
                got = f"{', '.join(map(str, repeated))} twice" if repeated else "none"
                raise ConfigError(f"EvaluationArguments.{name} must be at least one, each once, got {got}.")
