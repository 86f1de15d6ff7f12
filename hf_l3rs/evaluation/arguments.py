"""The settings of an evaluation, for `HfArgumentParser`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_l3rs.evaluation.baselines import BASELINES


@dataclass
class EvaluationArguments:
    """What is measured, and how long."""

    l3rs: str = field(metadata={"help": "Folder or Hub id of the L3RS."})
    setting: str = field(default="in domain", metadata={"help": "How the tasks relate to meta-training."})
    baselines: list[str] = field(default_factory=lambda: ["Adam constant", "Adam cosine"], metadata={
        "help": f"Any of {', '.join(BASELINES)}."})  # fmt: skip
    include_untrained: bool = field(default=True, metadata={"help": "Measure an untrained L3RS as well."})
    horizons: list[int] = field(default_factory=lambda: [10, 20, 50, 100], metadata={"help": "Lengths of runs."})
    num_tasks: int = field(default=16, metadata={"help": "Unseen tasks."})
    num_search_tasks: int = field(default=8, metadata={"help": "Validation tasks of the learning-rate search."})
    evaluate_every: int | None = field(default=None, metadata={"help": "Steps between points of the curves."})
    seed: int = field(default=1000, metadata={"help": "Of the tasks."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Where tables and pictures go."})
    title: str = field(default="Fine-tuning", metadata={"help": "Above the picture."})
