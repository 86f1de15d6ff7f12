"""The settings of a meta-training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_l3rs.errors import ConfigError
from hf_l3rs.optimizer.config import FEATURES, STEP_REFERENCES
from hf_l3rs.optimizer.directions import DIRECTIONS
from hf_l3rs.optimizer.fit import CARRIES_OVER
from hf_l3rs.validation import Range, check_fields, check_not_empty


# What an L3RS tells layers apart by.
LAYERS_BY = ("name", "role")


@dataclass
class L3RSArguments:
    """The L3RS that is trained. What is not explained by its help is a field of [`~hf_l3rs.L3RSConfig`]."""

    initial_l3rs: str | None = field(
        default=None,
        metadata={"help": "An L3RS to start from, of this model or another. It keeps all but layers_by, adam_betas, "
                  "batch_norm_momentum and anneal_long_runs as it has it."},
    )  # fmt: skip
    directions: list[str] = field(default_factory=lambda: ["adam", "sgd"], metadata={"help": "What is mixed."})
    hidden_sizes: list[int] = field(default_factory=lambda: [32, 32], metadata={"help": "Sizes of the MLP."})
    embedding_size: int = field(default=8, metadata={"help": "Size of a layer's embedding."})
    base_step: float = field(default=1e-3, metadata={"help": "RMS per element of an untrained update."})
    adam_betas: list[float] | None = field(
        default=None, metadata={"help": "Decays of the direction adam; those of initial_l3rs or 0.9 0.99 by default."}
    )
    step_reference: str = field(default="rms", metadata={"help": "What lambda is relative to; see L3RSConfig."})
    layers_by: str = field(
        default="name",
        metadata={"help": "What has an embedding: each layer's name, or its role, for models that it never saw."},
    )
    features: list[str] = field(
        default_factory=lambda: list(FEATURES),
        metadata={"help": "What the network sees; layers_by role adds structure."},
    )
    max_grad_norm: float | None = field(default=None, metadata={"help": "Clip gradients in the inner loop."})
    batch_norm_momentum: float | None = field(
        default=None, metadata={"help": "Of running statistics; initial_l3rs's or the model's own by default."}
    )
    anneal_long_runs: bool | None = field(
        default=None, metadata={"help": "Shrink steps in runs far beyond meta-training's; initial_l3rs's by default."}
    )

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "directions": DIRECTIONS,
                "hidden_sizes": Range(low=1),
                "embedding_size": Range(low=0),
                "base_step": Range(above=0),
                "adam_betas": Range(low=0, below=1),
                "step_reference": STEP_REFERENCES,
                "layers_by": LAYERS_BY,
                "features": FEATURES,
                "max_grad_norm": Range(above=0),
                "batch_norm_momentum": Range(above=0, high=1),
            },
        )
        check_not_empty(self, "initial_l3rs")
        if self.layers_by == "role" and self.initial_l3rs is None:
            check_carries_over(self.step_reference)


def check_carries_over(step_reference: str) -> None:
    """Raises if layers cannot be known by role alone, because steps depend on the width that they were learned at."""
    if step_reference != CARRIES_OVER:
        raise ConfigError(
            f"L3RSArguments.layers_by 'role' needs step_reference {CARRIES_OVER!r}, whose steps carry over between "
            f"widths, got {step_reference!r}; set it, or layers_by to 'name'."
        )


@dataclass
class MetaTrainingArguments:
    """How meta-training runs."""

    output_dir: str = field(default="outputs/l3rs", metadata={"help": "Folder of checkpoints, metrics, artefact."})
    validation_interval: int = field(
        default=10, metadata={"help": "Generations between validations, at most a fifth of the run; 0: none."}
    )
    checkpoint_interval: int = field(default=10, metadata={"help": "Generations between checkpoints; 0: none."})
    keep_checkpoints: int = field(default=2, metadata={"help": "Checkpoints to keep."})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint's folder, or 'last' for the last of output_dir."}
    )
    num_threads: int = field(
        default=1, metadata={"help": "CPU threads of a process; one is fastest for many small runs."}
    )
    report_to: str | None = field(
        default=None, metadata={"help": "A tracker that Accelerate knows, such as trackio, tensorboard or wandb."}
    )

    def __post_init__(self) -> None:
        rules = {"validation_interval": Range(low=0), "checkpoint_interval": Range(low=0)}
        check_fields(self, {**rules, "keep_checkpoints": Range(low=1), "num_threads": Range(low=1, high=1024)})
        check_not_empty(self, "output_dir", "resume_from_checkpoint", "report_to")
