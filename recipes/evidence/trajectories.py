"""What an L3RS decides for every layer at every step of a run (paper, figs. 4 and 5), as a table and as CSV."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from hf_l3rs.errors import DataError
from hf_l3rs.optimizer.layers import describe_layers
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.optimizer.optimizer import L3RS
from hf_l3rs.optimizer.parameters import all_named
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.inner_loop import fine_tune, inner_optimizer


COLUMNS = ("step", "num_training_steps", "layer", "role", "depth", "relative_step")
SHARE = "share_"  # what the columns of the directions begin with


class LayerDecision(NamedTuple):
    """
    What was decided for one layer in one step.

    Args:
        step, num_training_steps (`int`): Of the run, from 1, and its planned length.
        layer, role (`str`): Name of the parameter, and such as `"conv.weight"`.
        depth (`float`): Where the layer stands in the model, from 0, the first parameter, to 1, the last.
        relative_step (`float`): λ per element, as a multiple of the configuration's `base_step`.
        mixture (`tuple[float, ...]`): μ, the share of each direction.
    """

    step: int
    num_training_steps: int
    layer: str
    role: str
    depth: float
    relative_step: float
    mixture: tuple[float, ...]


def last_decisions(optimizer: L3RS) -> Iterator[LayerDecision]:
    """Yields what an L3RS decided in its last step for each layer that has a gradient; waits for the device."""
    groups = optimizer.param_groups
    layers = describe_layers(all_named(groups))
    places = {layer.name: index / max(1, len(layers) - 1) for index, layer in enumerate(layers)}
    trained = [(group, param) for group in groups for param in group["params"]]
    moved = [(group, layer) for (group, param), layer in zip(trained, layers) if param.grad is not None]
    decided = optimizer.monitor.decisions
    mixtures = [row for decision in decided for row in decision.mixture.tolist()]
    sizes = [row for decision in decided for row in (decision.update_norms / decision.sqrt_numel).tolist()]
    for (group, layer), mixture, size in zip(moved, mixtures, sizes, strict=True):
        run = (group["step"], group["num_training_steps"])
        relative = size / optimizer.config.base_step
        yield LayerDecision(*run, layer.name, layer.role, places[layer.name], relative, tuple(mixture))


def record_trajectory(
    model: nn.Module, network: L3RSNetwork, task: Task, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """
    Fine-tunes a model on a task with an L3RS, and records what it decides.

    Args:
        model (`nn.Module`): On `device`. Its state is overwritten.
        network ([`L3RSNetwork`]): The meta-weights.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What to fine-tune on, and how long.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.

    Returns:
        `pandas.DataFrame`: As of [`to_table`].

    Raises:
        DataError: If the run diverges.
    """
    optimizer = inner_optimizer(model, network, task.num_training_steps)
    decisions: list[LayerDecision] = []
    hook = optimizer.register_step_post_hook(lambda *_: decisions.extend(last_decisions(optimizer)))
    trajectory = fine_tune(model, task, optimizer, device=device, max_grad_norm=network.config.max_grad_norm)
    hook.remove()
    if trajectory.diverged:
        raise DataError("The L3RS diverges on this task, so that its decisions say nothing; choose another task.")
    return to_table(decisions, network.config.directions)


def to_table(decisions: Sequence[LayerDecision], directions: Sequence[str]) -> pd.DataFrame:
    """
    Returns decisions as a table with the columns `step`, `num_training_steps`, `layer`, `role`, `depth`,
    `relative_step` and, for each direction, `share_<direction>`; four significant digits are kept.
    """
    columns = [*COLUMNS, *(f"{SHARE}{name}" for name in directions)]
    table = pd.DataFrame([(*decision[:-1], *decision.mixture) for decision in decisions], columns=columns)
    return pd.read_csv(io.BytesIO(to_csv(table)))


def to_csv(table: pd.DataFrame) -> bytes:
    """Returns a table of [`to_table`] as CSV."""
    return table.to_csv(index=False, float_format="%.4g", lineterminator="\n").encode()


def read_trajectory(file: str | os.PathLike[str]) -> pd.DataFrame:
    """
    Reads a table of [`to_table`] from its CSV.

    Raises:
        DataError: If it is none.
    """
    try:
        table = pd.read_csv(Path(file))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as CSV ({error}); run recipes.trajectories again.") from error
    if not set(COLUMNS) <= set(table.columns) or not directions_of(table) or table.empty:
        raise DataError(f"{file} does not hold decisions of an L3RS; run recipes.trajectories again.")
    return table


def directions_of(table: pd.DataFrame) -> list[str]:
    """Returns the names of the directions that a table has shares of."""
    return [name.removeprefix(SHARE) for name in table.columns if name.startswith(SHARE)]
