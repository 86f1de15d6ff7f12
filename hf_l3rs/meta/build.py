"""Builds the L3RS that meta-training starts from, and what identifies a run."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.layers import describe_layers, named_trainable_parameters
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.arguments import L3RSArguments
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments
from hf_l3rs.tasks.base_model import resolved_commit
from hf_l3rs.tasks.provenance import describe_data


def build_network(
    model: nn.Module, l3rs_args: L3RSArguments, model_args: ModelArguments, task_args: TaskArguments, seed: int
) -> L3RSNetwork:
    """Returns the L3RS that meta-training starts from: an untrained one, or that of `initial_l3rs`."""
    changes: dict[str, Any] = {
        "base_model": model_args.base_model,
        "base_model_revision": resolved_commit(model),
        "model_type": getattr(getattr(model, "config", None), "model_type", None),
        "num_training_steps": task_args.longest_horizon,
    }
    if l3rs_args.adam_betas is not None:
        changes["adam_betas"] = tuple(l3rs_args.adam_betas)
    if l3rs_args.initial_l3rs is not None:
        start = L3RSArtifact.from_pretrained(l3rs_args.initial_l3rs).network
        changes["num_training_steps"] = max(changes["num_training_steps"], start.config.num_training_steps or 0)
        network = L3RSNetwork(start.config.replace(**changes))
        network.load_state_dict(start.state_dict())
        return network
    trained = {name for name, _ in named_trainable_parameters(model)}
    layers = [layer for layer in describe_layers(model.named_parameters()) if layer.name in trained]
    config = L3RSConfig(
        layers=tuple(layers),
        directions=tuple(l3rs_args.directions),
        hidden_sizes=tuple(l3rs_args.hidden_sizes),
        embedding_size=l3rs_args.embedding_size,
        base_step=l3rs_args.base_step,
        step_reference=l3rs_args.step_reference,
        max_grad_norm=l3rs_args.max_grad_norm,
        **changes,
    )
    return L3RSNetwork(config, seed)


def run_settings(
    l3rs_args: L3RSArguments, model_args: ModelArguments, task_args: TaskArguments, seed: int
) -> dict[str, Any]:
    """Returns what a run's result depends on beside configuration and strategy, as plain JSON values."""
    settings: dict[str, Any] = {
        "l3rs": dataclasses.asdict(l3rs_args),
        "model": dataclasses.asdict(model_args),
        "tasks": dataclasses.asdict(task_args),
        "data": describe_data(task_args, seed),
    }
    for dataset in settings["tasks"]["datasets"]:
        del dataset["max_memory_gb"]  # images are the same in memory and from disk
    return settings
