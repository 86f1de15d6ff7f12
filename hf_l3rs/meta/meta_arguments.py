"""The settings of a meta-training run, and the L3RS that it starts from by these."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import L3RSArtifact
from hf_l3rs.optimizer.config import FEATURES, STEP_REFERENCES, STRUCTURE, L3RSConfig, LayerSpec
from hf_l3rs.optimizer.directions import DIRECTIONS
from hf_l3rs.optimizer.fit import CARRIES_OVER, measure_fit
from hf_l3rs.optimizer.layers import describe_trainable_layers, match_layers, role_layers
from hf_l3rs.optimizer.network import L3RSNetwork, embed
from hf_l3rs.tasks.model import resolved_commit
from hf_l3rs.tasks.seen_data import describe_data
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments
from hf_l3rs.validation import Range, check_fields, check_not_empty


logger = logging.getLogger(__name__)

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


def build_network(
    model: nn.Module | Sequence[nn.Module],
    l3rs_args: L3RSArguments,
    model_args: ModelArguments,
    task_args: TaskArguments,
    seed: int,
) -> L3RSNetwork:
    """
    Returns the L3RS that meta-training starts from: that of `initial_l3rs`, or an untrained one of random weights.

    Args:
        model (`nn.Module` or `Sequence[nn.Module]`): What is to be trained; several with `layers_by: role`.
        l3rs_args, model_args, task_args: The settings of the run.
        seed (`int`): Of untrained weights.
    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    layers = layers_to_know(models, l3rs_args.layers_by)
    one_model = models[0] if len(models) == 1 else None
    fields = _config_fields(l3rs_args)
    changes: dict[str, Any] = {
        "base_model": None if model_args.more_base_models else model_args.base_model,
        "base_model_revision": resolved_commit(one_model) if one_model is not None else None,
        "model_type": getattr(getattr(one_model, "config", None), "model_type", None),
        "num_training_steps": task_args.longest_horizon,
    }
    for name in ("adam_betas", "batch_norm_momentum", "anneal_long_runs"):
        if (value := getattr(l3rs_args, name)) is not None:
            changes[name] = tuple(value) if isinstance(value, list) else value
    if l3rs_args.initial_l3rs is not None:
        start = L3RSArtifact.from_pretrained(l3rs_args.initial_l3rs).network
        if l3rs_args.layers_by == "role":
            check_carries_over(start.config.step_reference)
        _tell_what_is_kept(start.config, fields)
        changes["num_training_steps"] = max(changes["num_training_steps"], start.config.num_training_steps or 0)
        fit = measure_fit(layers, start.config).describe()
        logger.info("Meta-training goes on from %s, which %s.", l3rs_args.initial_l3rs, fit)
        return warm_start(start, layers, **changes)
    return L3RSNetwork(L3RSConfig(layers=layers, **fields, **changes), seed)


def layers_to_know(models: Sequence[nn.Module], layers_by: str) -> tuple[LayerSpec, ...]:
    """Returns the layers that get an embedding: those of one model that are trained, or the roles of several's."""
    layers = [layer for model in models for layer in describe_trainable_layers(model)]
    if layers_by == "role":
        return role_layers(layers)
    if len(models) != 1:
        raise ConfigError(
            f"L3RSArguments.layers_by 'name' is for one model, got {len(models)}; set it to 'role', or choose one."
        )
    return tuple(layers)


def warm_start(start: L3RSNetwork, layers: tuple[LayerSpec, ...], **changes: Any) -> L3RSNetwork:
    """Returns a network that knows other layers than `start` does and treats them as `start` would."""
    network = L3RSNetwork(start.config.replace(layers=layers, **changes))
    tensors = start.state_dict()
    if layers != start.config.layers:
        tensors["embeddings"] = embed(match_layers(layers, start.config.layers).weights, start.embeddings).float()
    network.load_state_dict(tensors)
    return network


def _config_fields(l3rs_args: L3RSArguments) -> dict[str, Any]:
    """Returns the fields of [`L3RSConfig`] that the arguments set and an `initial_l3rs` has its own of."""
    same = ("embedding_size", "base_step", "step_reference", "max_grad_norm")
    return {
        "directions": tuple(l3rs_args.directions),
        "hidden_sizes": tuple(l3rs_args.hidden_sizes),
        **{name: getattr(l3rs_args, name) for name in same},
        "features": (*l3rs_args.features, *([STRUCTURE] if l3rs_args.layers_by == "role" else [])),
    }


def _tell_what_is_kept(config: L3RSConfig, fields: dict[str, Any]) -> None:
    own = {name: getattr(config, name) for name in fields}
    differing = [f"{name} {own[name]} (not {value})" for name, value in fields.items() if own[name] != value]
    if differing:
        logger.info("The L3RS that meta-training goes on from keeps its own %s.", ", ".join(differing))


def run_settings(
    l3rs_args: L3RSArguments,
    model_args: ModelArguments,
    task_args: TaskArguments,
    seed: int,
    models: Sequence[nn.Module] = (),
) -> dict[str, Any]:
    """Returns what a run's result depends on beside configuration and strategy, the commits of several models too."""
    settings: dict[str, Any] = {
        "l3rs": dataclasses.asdict(l3rs_args),
        "model": dataclasses.asdict(model_args),
        "tasks": dataclasses.asdict(task_args),
        "data": describe_data(task_args, seed),
    }
    revisions = [resolved_commit(model) for model in models]
    if len(models) > 1 and any(revisions):
        settings["model"]["revisions"] = revisions
    for dataset in settings["tasks"]["datasets"]:
        del dataset["max_memory_gb"]  # images are the same in memory and from disk
    return settings
