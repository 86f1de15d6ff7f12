"""What a meta-training run tells of itself in the end, for the model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.checkpoint import Progress, plain_json
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.meta.gradient import GradientConfig
from hf_l3rs.meta.outer import OuterConfig
from hf_l3rs.meta.windows import WindowConfig


def summarise_run(progress: Progress, strategy: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """
    Returns what a run was, what it gave and what it cost, as strict JSON values.

    Args:
        progress ([`Progress`]): Where the run stands.
        strategy (`dict`): From [`describe_strategy`].
        earlier (`dict`): The summary of the L3RS that it started from; empty where there is none. Its cost is added.
    """
    tasks = progress.settings.get("tasks", {})
    models = progress.settings.get("model", {})
    of_several = ("base_model", "more_base_models", "revisions") if "more_base_models" in models else ()
    summary = {
        "datasets": [dataset["hub_id"] or dataset["path"] for dataset in tasks.get("datasets", [])],
        **{name: value for name, value in progress.settings.items() if name == "data"},
        **{name: value for name, value in tasks.items() if name != "datasets"},
        **{name: models[name] for name in (*of_several, "trainable") if name in models},
        **strategy,
        "best_generation": progress.best_generation,
        "best_validation_loss": progress.best_loss,
        **{f"validation_loss_{name}": loss for name, loss in progress.references.items()},
        **with_earlier_cost(progress.cost, earlier),
        **({"started_from": earlier} if earlier else {}),
    }
    return plain_json(summary)


def describe_strategy(
    es: ESConfig, gradient: GradientConfig | None, meta_loss: MetaLoss, task_per_pair: bool
) -> dict[str, Any]:
    """Returns the settings that the estimator reads, and none of the others'; see [`MetaTrainer`]."""
    strategy = dataclasses.asdict(es)
    if gradient is None:
        judged = {**dataclasses.asdict(meta_loss), "task_per_pair": task_per_pair}
        return {"estimator": "evolution", **strategy, **judged}
    if isinstance(gradient, WindowConfig):
        return {"estimator": "windows", **strategy, **dataclasses.asdict(gradient)}
    strategy = {spec.name: strategy[spec.name] for spec in dataclasses.fields(OuterConfig)}
    return {"estimator": "gradient", **strategy, **dataclasses.asdict(gradient)}


def with_earlier_cost(cost: Mapping[str, float], earlier: dict[str, Any]) -> dict[str, float]:
    """Adds what an earlier run cost, whose summary may be of a time when only its inner steps were counted."""
    earlier = {"cost_in_plain_steps": earlier.get("inner_steps", 0), **earlier}
    return {name: value + earlier.get(name, 0) for name, value in cost.items()}
