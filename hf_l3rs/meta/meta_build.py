"""
The best of several seeds (ours). What short meta-training gives depends on the order of its tasks, so that a few short
runs, and the best of them on validation tasks, may be worth more than one that took as long.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from torch import nn

from hf_l3rs.errors import ConfigError, NothingToKeepError
from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.meta.candidates import MetaLoss, Scorer
from hf_l3rs.meta.checkpoint import NO_COST
from hf_l3rs.meta.meta_arguments import L3RSArguments, check_carries_over
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.summary import with_earlier_cost
from hf_l3rs.optimizer.config import FEATURES, STRUCTURE, L3RSConfig, LayerSpec
from hf_l3rs.optimizer.fit import measure_fit
from hf_l3rs.optimizer.layers import describe_trainable_layers, match_layers, role_layers
from hf_l3rs.optimizer.network import L3RSNetwork, embed
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.model import resolved_commit
from hf_l3rs.tasks.seen_data import describe_data
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


logger = logging.getLogger(__name__)

# Options that are younger than some checkpoints, which know a run by the settings without them.
_YOUNGER_OPTIONS: dict[str, dict[str, Any]] = {
    "l3rs": {
        "layers_by": "name",
        "batch_norm_momentum": None,
        "anneal_long_runs": None,
        "features": list(FEATURES),
    },
    "model": {"more_base_models": [], "trainable": "all"},
    "tasks": {"batch_sizes": [], "spread_horizons": False},
}


def build_network(
    model: nn.Module | Sequence[nn.Module],
    l3rs_args: L3RSArguments,
    model_args: ModelArguments,
    task_args: TaskArguments,
    seed: int,
) -> L3RSNetwork:
    """
    Returns the L3RS that meta-training starts from: an untrained one, or that of `initial_l3rs`.

    Args:
        model (`nn.Module` or `Sequence[nn.Module]`): What is to be trained; several with `layers_by: role`.
        l3rs_args ([`L3RSArguments`]): The L3RS.
        model_args ([`~hf_l3rs.tasks.task_arguments.ModelArguments`]): Where the model comes from.
        task_args ([`~hf_l3rs.tasks.task_arguments.TaskArguments`]): The tasks.
        seed (`int`): Of untrained weights.

    Raises:
        ArtifactError: If `initial_l3rs` cannot be had, or is not a readable L3RS.
        ConfigError: If a value is out of its range.
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
    for name, value in (
        ("adam_betas", l3rs_args.adam_betas and tuple(l3rs_args.adam_betas)),
        ("batch_norm_momentum", l3rs_args.batch_norm_momentum),
        ("anneal_long_runs", l3rs_args.anneal_long_runs),
    ):
        if value is not None:
            changes[name] = value
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
    """
    Returns the layers that get an embedding: those of one model that are trained, or the roles of those of several.

    Raises:
        ConfigError: If several models' layers are to be known by name, which tells none of the models apart.
    """
    layers = [layer for model in models for layer in describe_trainable_layers(model)]
    if layers_by == "role":
        return role_layers(layers)
    if len(models) != 1:
        raise ConfigError(
            f"L3RSArguments.layers_by 'name' is for one model, got {len(models)}; set it to 'role', or choose one."
        )
    return tuple(layers)


def warm_start(start: L3RSNetwork, layers: tuple[LayerSpec, ...], **changes: Any) -> L3RSNetwork:
    """
    Returns a network that knows other layers than `start` does and treats them as `start` would.

    Args:
        start ([`L3RSNetwork`]): Gives the meta-weights.
        layers (`tuple[LayerSpec, ...]`): Each gets the embedding that `start` has for it, a mean included.
        changes: Other fields of the configuration to replace.

    Returns:
        [`L3RSNetwork`]
    """
    network = L3RSNetwork(start.config.replace(layers=layers, **changes))
    tensors = start.state_dict()
    if layers != start.config.layers:
        tensors["embeddings"] = embed(match_layers(layers, start.config.layers).weights, start.embeddings).float()
    network.load_state_dict(tensors)
    return network


def _config_fields(l3rs_args: L3RSArguments) -> dict[str, Any]:
    """Returns the fields of [`L3RSConfig`] that the arguments set and an `initial_l3rs` has its own of."""
    return {
        "directions": tuple(l3rs_args.directions),
        "hidden_sizes": tuple(l3rs_args.hidden_sizes),
        "embedding_size": l3rs_args.embedding_size,
        "base_step": l3rs_args.base_step,
        "step_reference": l3rs_args.step_reference,
        "max_grad_norm": l3rs_args.max_grad_norm,
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
    """
    Returns what a run's result depends on beside configuration and strategy, as plain JSON values.

    Args:
        l3rs_args ([`L3RSArguments`]): The L3RS.
        model_args ([`~hf_l3rs.tasks.task_arguments.ModelArguments`]): Where the models come from.
        task_args ([`~hf_l3rs.tasks.task_arguments.TaskArguments`]): The tasks.
        seed (`int`): Of the run.
        models (`Sequence[nn.Module]`, *optional*):
            What is fine-tuned. Of several models the commits on the Hub are recorded; the configuration has one's.
    """
    settings: dict[str, Any] = {
        "l3rs": dataclasses.asdict(l3rs_args),
        "model": dataclasses.asdict(model_args),
        "tasks": dataclasses.asdict(task_args),
        "data": describe_data(task_args, seed),
    }
    for part, defaults in _YOUNGER_OPTIONS.items():
        for name, default in defaults.items():
            if settings[part][name] == default:
                del settings[part][name]
    revisions = [resolved_commit(model) for model in models]
    if len(models) > 1 and any(revisions):
        settings["model"]["revisions"] = revisions
    for dataset in settings["tasks"]["datasets"]:
        del dataset["max_memory_gb"]  # images are the same in memory and from disk
    return settings


def choose_best(networks: Mapping[str, L3RSNetwork], tasks: Sequence[Task], accelerator: Accelerator) -> str:
    """
    Returns the name of the L3RS with the least mean final loss on some tasks.

    Args:
        networks (`Mapping[str, L3RSNetwork]`): L3RS for the tasks' model, by name; of equal ones the first is taken.
        tasks (`Sequence[Task]`): What they are chosen by: validation tasks.
        accelerator (`Accelerator`): Names device and precision, and shares the tasks out.

    Raises:
        NothingToKeepError: If every one of them diverged on a task.
    """
    for model in dict.fromkeys(task.model for task in tasks):
        model.to(accelerator.device)
    processes = Processes(accelerator)
    losses = {
        name: Scorer(network.config, MetaLoss(), accelerator).mean_loss(network.to_vector(), tasks, processes)
        for name, network in networks.items()
    }
    best = min(losses, key=lambda name: losses[name])
    if losses[best] == math.inf:
        raise NothingToKeepError(
            f"No L3RS is worth keeping: {', '.join(losses)} all diverged on a validation task; lower learning_rate or "
            "base_step, and start anew in another output_dir."
        )
    if accelerator.is_main_process:
        told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        logger.info("Of %d runs %s is kept, the best on %d validation tasks: %s.", len(losses), best, len(tasks), told)
    return best


def summary_of_choice(summaries: Mapping[str, dict[str, Any]], chosen: str) -> dict[str, Any]:
    """
    Returns the summary of the meta-training that was chosen, at the cost of all, and with their number as
    `chosen_from`. What an L3RS cost that all of them started from is counted once.

    Args:
        summaries (`Mapping[str, dict]`): Of all runs, also of those that gave nothing, by name.
        chosen (`str`): The one that is kept.
    """
    summary = summaries[chosen]
    if len(summaries) == 1:
        return summary
    start = with_earlier_cost(NO_COST, summary.get("started_from", {}))  # which each has in its cost
    costs = {
        name: sum(each.get(name, 0) for each in summaries.values()) - (len(summaries) - 1) * start[name]
        for name in NO_COST
    }
    return {**summary, **costs, "chosen_from": len(summaries)}
