"""The settings of a meta-training run, for `HfArgumentParser`: a YAML file, and options that override it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hf_l3rs.errors import ConfigError
from hf_l3rs.image_pools import DEFAULT_MAX_MEMORY


@dataclass
class DatasetArguments:
    """
    One data set that tasks are drawn from. Splits that are not named are cut out of `batches_split`.

    Args:
        path (`str`): Hub id, local data set, imagefolder or parquet file, as `datasets.load_dataset` takes it.
        name (`str`, *optional*): Configuration of the data set.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        hub_id (`str`, *optional*): What cards call the data set where `path` is local: its id on the Hub.
        batches_split (`str`, *optional*, defaults to `"train"`): Where training batches come from.
        evaluation_split (`str`, *optional*): Where evaluation sets come from.
        validation_batches_split (`str`, *optional*): Where validation tasks' training batches come from.
        validation_evaluation_split (`str`, *optional*): Where validation tasks' evaluation sets come from.
        classes (`list`, *optional*): Names or ids of the classes to use; all by default.
        image_column (`str`, *optional*): Found by its type by default.
        label_column (`str`, *optional*): Found by its type by default.
        max_images (`int`, *optional*): Images to keep of a split, chosen at random.
        weight (`float`, *optional*, defaults to `1.0`): How often it is drawn, relative to the others.
        max_memory_gb (`float`, *optional*, defaults to `4.0`):
            How many 10⁹ bytes of decoded images a process may hold; what does not fit is decoded whenever needed.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    hub_id: str | None = None
    batches_split: str = "train"
    evaluation_split: str | None = None
    validation_batches_split: str | None = None
    validation_evaluation_split: str | None = None
    classes: list[Any] | None = None
    image_column: str | None = None
    label_column: str | None = None
    max_images: int | None = None
    weight: float = 1.0
    max_memory_gb: float = DEFAULT_MAX_MEMORY / 1e9

    def __post_init__(self) -> None:
        if not self.max_memory_gb >= 0:
            raise ConfigError(
                f"max_memory_gb of data set {self.path} must be at least 0, got {self.max_memory_gb}; 0 decodes every "
                "image when it is needed."
            )

    @classmethod
    def parse(cls, value: Any) -> DatasetArguments:
        """Returns what a path, or a mapping of the fields, describes."""
        if isinstance(value, cls):
            return value
        if isinstance(value, (str, Path)):
            return cls(str(value))
        known = [spec.name for spec in dataclasses.fields(cls)]
        if not isinstance(value, dict) or "path" not in value or set(value) - set(known):
            raise ConfigError(f"A data set is a path, or a mapping with path and any of {known[1:]}; got {value!r}.")
        return cls(**value)


@dataclass
class ModelArguments:
    """
    The pretrained model and the L3RS that is trained for it; see [`L3RSConfig`] for the fields of the latter.

    Args:
        base_model (`str`): Hub id or folder of an image-classification model.
        base_model_revision (`str`, *optional*): Branch, tag or commit on the Hub.
        initial_checkpoints (`list[str]`, *optional*):
            Where inner loops start: checkpoints of the same architecture, `"random"` for new weights; `base_model`
            by default.
        reuse_head (`bool`, *optional*, defaults to `False`): Whether the checkpoint's own head is fine-tuned.
        initial_l3rs (`str`, *optional*): An L3RS to start from in place of an untrained one.
    """

    base_model: str = field(metadata={"help": "Hub id or folder of an image-classification model."})
    base_model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    initial_checkpoints: list[str] = field(
        default_factory=list, metadata={"help": "Checkpoints of the same architecture, or 'random'."}
    )
    reuse_head: bool = field(default=False, metadata={"help": "Fine-tune the checkpoint's own head."})
    initial_l3rs: str | None = field(default=None, metadata={"help": "An L3RS to start from."})
    directions: list[str] = field(default_factory=lambda: ["adam", "sgd"], metadata={"help": "What is mixed."})
    hidden_sizes: list[int] = field(default_factory=lambda: [32, 32], metadata={"help": "Sizes of the MLP."})
    embedding_size: int = field(default=8, metadata={"help": "Size of a layer's embedding."})
    base_step: float = field(default=1e-3, metadata={"help": "RMS per element of an untrained update."})
    adam_betas: list[float] | None = field(
        default=None, metadata={"help": "Decays of the direction adam; those of initial_l3rs or 0.9 0.99 by default."}
    )
    step_reference: str = field(default="rms", metadata={"help": "What lambda is relative to: rms or absolute."})
    max_grad_norm: float | None = field(default=None, metadata={"help": "Clip gradients in the inner loop."})


@dataclass
class TaskArguments:
    """
    The distribution of tasks.

    Args:
        datasets (`list`): Each a path, or a mapping of [`DatasetArguments`].
        num_classes (`int`, *optional*, defaults to `5`): Classes of a task.
        batch_size (`int`, *optional*, defaults to `32`): Images of a training batch.
        evaluation_size (`int`, *optional*, defaults to `512`): Images of a task's evaluation set.
        min_steps (`int`, *optional*, defaults to `20`): Least horizon in steps.
        max_steps (`int`, *optional*): Greatest horizon; between the two it is log-uniform. `min_steps` by default.
        curriculum_generations (`int`, *optional*, defaults to `0`): Over how many the greatest horizon grows.
        augmentations (`list[str]`, *optional*): What makes more tasks of the same images.
        num_validation_tasks (`int`, *optional*, defaults to `16`): Fixed tasks on other images; 0 for none.
    """

    datasets: list[DatasetArguments] = field(metadata={"help": "Paths or, in YAML, mappings."})
    num_classes: int = field(default=5, metadata={"help": "Classes of a task."})
    batch_size: int = field(default=32, metadata={"help": "Images of a training batch."})
    evaluation_size: int = field(default=512, metadata={"help": "Images of a task's evaluation set."})
    min_steps: int = field(default=20, metadata={"help": "Least horizon in steps."})
    max_steps: int | None = field(default=None, metadata={"help": "Greatest horizon in steps."})
    curriculum_generations: int = field(default=0, metadata={"help": "Over how many the horizon grows."})
    augmentations: list[str] = field(default_factory=list, metadata={"help": "What widens the distribution."})
    num_validation_tasks: int = field(default=16, metadata={"help": "Fixed tasks on other images; 0 for none."})

    def __post_init__(self) -> None:
        self.datasets = [DatasetArguments.parse(value) for value in self.datasets]


@dataclass
class MetaTrainingArguments:
    """
    How meta-training runs: what does not change its result, except validation and early stopping.

    Args:
        output_dir (`str`): Where checkpoints, metrics and the finished artefact go.
        task_per_pair (`bool`, *optional*, defaults to `True`):
            Whether each pair of candidates has a task of its own (ours), or a generation shares one (paper).
        validation_interval (`int`, *optional*, defaults to `10`): Generations between validations; 0 for none.
        early_stopping_patience (`int`, *optional*, defaults to `0`):
            Validations without improvement after which training stops; 0 never stops early.
        checkpoint_interval (`int`, *optional*, defaults to `10`): Generations between checkpoints; 0 for none.
        keep_checkpoints (`int`, *optional*, defaults to `2`): Checkpoints to keep.
        resume_from_checkpoint (`str`, *optional*): A checkpoint's folder, or `"last"` for the last of `output_dir`.
        num_threads (`int`, *optional*, defaults to `1`):
            CPU threads of a process. One is fastest for many small candidates; rounding depends on it.
        vectorized_pairs (`int`, *optional*, defaults to `0`):
            Pairs whose inner loops run as one through `torch.func.vmap`; 0 runs candidates one after another. Faster
            for small dense models, slower for convolutions on a CPU. Tasks must then have one fixed horizon.
        compile_model (`bool`, *optional*, defaults to `False`): Whether the inner loop's model is compiled.
        report_to (`str`, *optional*): A tracker that Accelerate knows, such as `"wandb"` or `"tensorboard"`.
        project (`str`, *optional*, defaults to `"l3rs-meta-training"`): Project name for that tracker.
    """

    output_dir: str = field(default="outputs/l3rs", metadata={"help": "Folder of checkpoints, metrics, artefact."})
    task_per_pair: bool = field(default=True, metadata={"help": "A task for each pair, or one for a generation."})
    validation_interval: int = field(default=10, metadata={"help": "Generations between validations; 0: none."})
    early_stopping_patience: int = field(default=0, metadata={"help": "Validations without gain before a stop."})
    checkpoint_interval: int = field(default=10, metadata={"help": "Generations between checkpoints; 0: none."})
    keep_checkpoints: int = field(default=2, metadata={"help": "Checkpoints to keep."})
    resume_from_checkpoint: str | None = field(default=None, metadata={"help": "A checkpoint's folder, or 'last'."})
    num_threads: int = field(default=1, metadata={"help": "CPU threads of a process."})
    vectorized_pairs: int = field(default=0, metadata={"help": "Pairs that run as one through vmap; 0: none."})
    compile_model: bool = field(default=False, metadata={"help": "Compile the inner loop's model."})
    report_to: str | None = field(default=None, metadata={"help": "A tracker that Accelerate knows."})
    project: str = field(default="l3rs-meta-training", metadata={"help": "Project name for the tracker."})

    def __post_init__(self) -> None:
        for name in ("validation_interval", "early_stopping_patience", "checkpoint_interval", "vectorized_pairs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}.")
        for name in ("keep_checkpoints", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")


def parse_arguments(dataclass_types: Sequence[type], args: Sequence[str] | None = None, **kwargs: Any) -> tuple:
    """
    Reads settings from an optional YAML file, the first argument, and from options, which win.

    Args:
        dataclass_types (`Sequence[type]`): What to fill.
        args (`Sequence[str]`, *optional*): The command line; that of the process by default.
        kwargs: Passed to the parser, such as `description`.

    Returns:
        `tuple`: An instance of each type.

    Raises:
        ConfigError: If the file cannot be read, or has a field that no type knows.
    """
    from transformers import HfArgumentParser

    args = list(sys.argv[1:] if args is None else args)
    parser = HfArgumentParser(
        list(dataclass_types),  # type: ignore[arg-type]
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        **kwargs,
    )
    if args and args[0].endswith((".yaml", ".yml")):
        values = _read_yaml(args.pop(0))
        known = {spec.name for kind in dataclass_types for spec in dataclasses.fields(kind)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"Unknown settings in the YAML file: {', '.join(unknown)}; known are {sorted(known)}.")
        parser.set_defaults(**values)
        for action in parser._actions:
            action.required = action.required and action.dest not in values
    return parser.parse_args_into_dataclasses(args, look_for_args_file=False)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The settings file {path} must hold one `name: value` a line, got {type(values).__name__}.")
    return values
