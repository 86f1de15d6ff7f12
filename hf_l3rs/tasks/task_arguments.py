"""The settings of tasks: pretrained model, data sets and sizes."""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.model import ALL, check_trainable
from hf_l3rs.tasks.pools import AUGMENTATIONS, DEFAULT_MAX_MEMORY
from hf_l3rs.validation import Range, check_fields, check_not_empty


# What the images of a data set are for. Each has a split of its own, or a part of one.
ROLES = ("batches", "evaluation", "validation_batches", "validation_evaluation")

# How the images of a single split are shared out, where no other splits are named.
SHARES = dict(zip(ROLES, (0.4, 0.3, 0.15, 0.15)))

MAX_STEPS = 10**6  # a longer inner loop is a mistake in the settings; its batches would not fit the memory


@dataclass(frozen=True)
class DatasetArguments:
    """
    One data set that tasks are drawn from. Splits that are not named are cut out of `batches_split`.

    Args:
        path (`str`): Hub id, local data set, imagefolder or parquet file, as `datasets.load_dataset` takes it.
        name (`str`, *optional*): Configuration of the data set.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        hub_id (`str`, *optional*): What cards call the data set where `path` is local: its id on the Hub.
        batches_split, evaluation_split (`str`): Where tasks' training batches and evaluation sets come from.
        validation_batches_split, validation_evaluation_split (`str`, *optional*): The same for validation tasks.
        classes (`list`, *optional*): Names or ids of the classes to use; all by default.
        image_column, label_column (`str`, *optional*): Found by their types by default.
        max_images (`int`, *optional*): Images to keep of a split, chosen at random.
        max_memory_gb (`float`, *optional*, defaults to `4.0`):
            How many 10⁹ bytes of decoded images a process may hold. What does not fit is decoded whenever needed.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    hub_id: str | None = None
    batches_split: str = "train"
    evaluation_split: str | None = None
    validation_batches_split: str | None = None
    validation_evaluation_split: str | None = None
    classes: list[str | int] | None = None
    image_column: str | None = None
    label_column: str | None = None
    max_images: int | None = None
    max_memory_gb: float = DEFAULT_MAX_MEMORY / 1e9

    def __post_init__(self) -> None:
        check_fields(self, {"max_images": Range(low=1), "max_memory_gb": Range(low=0, high=math.inf)})
        check_not_empty(self, "path", *(f"{role}_split" for role in ROLES))

    @property
    def known_as(self) -> str | None:
        """The data set's id on the Hub; `None` for one that is only here."""
        return self.hub_id or (None if Path(self.path).exists() else self.path)

    @property
    def splits(self) -> dict[str, str | None]:
        """The split that is named for each of ROLES; `None` where it is cut out of `batches_split`."""
        return {role: getattr(self, f"{role}_split") for role in ROLES}

    @classmethod
    def parse(cls, value: Any) -> DatasetArguments:
        """Returns what a path, or a mapping of the fields, describes."""
        if isinstance(value, cls):
            return value
        if isinstance(value, (str, Path)):
            return cls(str(value))
        known = [spec.name for spec in dataclasses.fields(cls)]
        if not isinstance(value, dict) or "path" not in value or set(value) - set(known):
            got = shorten(repr(value), 200)
            raise ConfigError(f"A data set is a path, or a mapping with path and any of {known[1:]}; got {got}.")
        return cls(**value)


class _DatasetsOption(argparse.Action):
    """`--datasets` replaces plain paths of a settings file. Where the file says more of its data, it is refused."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest, None)
        for each in map(DatasetArguments.parse, before if isinstance(before, list) else []):
            if each != DatasetArguments(each.path):
                raise ConfigError(
                    f"--datasets has only paths, but the settings file says more of {each.path}, such as splits; "
                    "leave it out, and change the path in the file."
                )
        setattr(namespace, self.dest, values)


@dataclass(frozen=True)
class ModelArguments:
    """The pretrained model that tasks fine-tune."""

    base_model: str = field(metadata={"help": "Hub id or folder of an image-classification model."})
    base_model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    more_base_models: list[str] = field(default_factory=list, metadata={
        "help": "Folders or Hub ids of models that tasks fine-tune as well, taking turns with base_model, each from "
        "its own weights and with its own image processor."})  # fmt: skip
    trainable: str = field(default=ALL, metadata={
        "help": "What every optimizer fine-tunes: all, head, last:N (the last N blocks and the head) or lora:N (LoRA "
        "adapters of rank N and the head)."})  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        check_not_empty(self, "base_model", "base_model_revision", "more_base_models")
        check_trainable(self.trainable)

    def each(self) -> list[ModelArguments]:
        """Returns the settings of every base model by itself."""
        own = dataclasses.replace(self, more_base_models=[])
        more = [dataclasses.replace(own, base_model=name, base_model_revision=None) for name in self.more_base_models]
        return [own, *more]


@dataclass(frozen=True)
class TaskArguments:
    """The distribution of tasks."""

    datasets: list[DatasetArguments] = field(metadata={
        "help": "Paths; in YAML also mappings with path, splits, classes and so on.",
        "action": _DatasetsOption})  # fmt: skip
    num_classes: int = field(default=5, metadata={"help": "Classes of a task."})
    batch_size: int = field(default=32, metadata={"help": "Images of a training batch."})
    batch_sizes: list[int] = field(default_factory=list, metadata={
        "help": "What batch_size is drawn from for every task; fixed by default."})  # fmt: skip
    evaluation_size: int = field(default=512, metadata={"help": "Images of a task's evaluation set."})
    min_steps: int = field(default=20, metadata={"help": "Least horizon in steps."})
    max_steps: int | None = field(default=None, metadata={
        "help": "Greatest horizon in steps; between the two it is log-uniform. min_steps by default."})  # fmt: skip
    spread_horizons: bool = field(default=False, metadata={
        "help": "Spread the horizons of a generation evenly over their range; else each is drawn."})  # fmt: skip
    augmentations: list[str] = field(default_factory=list, metadata={
        "help": f"What makes more tasks of the same images: any of {', '.join(AUGMENTATIONS)}."})  # fmt: skip
    num_validation_tasks: int = field(default=16, metadata={"help": "Fixed tasks on other images; 0 for none."})

    def __post_init__(self) -> None:
        if not isinstance(self.datasets, (list, tuple)) or not self.datasets:
            raise ConfigError(
                "TaskArguments.datasets must be a list of at least one data set, each a path or a mapping, got "
                f"{shorten(repr(self.datasets), 100)}; write a single one as [path]."
            )
        object.__setattr__(self, "datasets", [DatasetArguments.parse(value) for value in self.datasets])
        check_fields(
            self,
            {
                "num_classes": Range(low=2),
                **dict.fromkeys(("batch_size", "batch_sizes", "evaluation_size"), Range(low=1)),
                **dict.fromkeys(("min_steps", "max_steps"), Range(low=1, high=MAX_STEPS)),
                "num_validation_tasks": Range(low=0),
                "augmentations": AUGMENTATIONS,
            },
        )
        if self.longest_horizon < self.min_steps:
            raise ConfigError(
                f"TaskArguments.max_steps must be at least min_steps={self.min_steps}, got {self.max_steps}."
            )

    @property
    def longest_horizon(self) -> int:
        return self.min_steps if self.max_steps is None else self.max_steps
