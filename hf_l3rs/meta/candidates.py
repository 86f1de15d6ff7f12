"""Scores of candidates: where the inner loop of a task ends with their meta-weights."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.learned.layers import named_trainable_parameters
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.learned.optimizer import LearnedOptimizer
from hf_l3rs.tasks.inner_loop import Autocast, Evaluation, Trajectory, fine_tune
from hf_l3rs.tasks.task import Task


@dataclass(frozen=True)
class MetaLoss:
    """
    What a candidate is judged by: the final evaluation loss (paper), or a mixture (ours).

    Args:
        trajectory_weight (`float`, *optional*, defaults to `0.0`):
            Weight in [0, 1] of the mean training loss over the steps; the final evaluation loss has the rest.
        accuracy_weight (`float`, *optional*, defaults to `0.0`): Weight of the final error rate, added to the loss.
    """

    trajectory_weight: float = field(default=0.0, metadata={"help": "Share of the mean training loss, in [0, 1]."})
    accuracy_weight: float = field(default=0.0, metadata={"help": "Weight of the final error rate."})

    def __post_init__(self) -> None:
        if not 0 <= self.trajectory_weight <= 1 or self.accuracy_weight < 0:
            raise ConfigError(
                "trajectory_weight must be in [0, 1] and accuracy_weight at least 0, got "
                f"{self.trajectory_weight} and {self.accuracy_weight}."
            )

    def __call__(self, trajectory: Trajectory) -> float:
        """Returns the meta-loss; infinite for a trajectory that diverged."""
        if trajectory.diverged:
            return math.inf
        final = trajectory.evaluations[trajectory.num_steps]
        loss = (1 - self.trajectory_weight) * final.loss + self.trajectory_weight * trajectory.training_loss
        loss += self.accuracy_weight * (1 - final.accuracy)
        return loss if math.isfinite(loss) else math.inf


class Rollout(NamedTuple):
    """
    A candidate's result on a task.

    Args:
        meta_loss (`float`): What the candidate is judged by; infinite if it diverged.
        loss (`float`): Final evaluation loss; infinite if it diverged.
        accuracy (`float`): Final accuracy; 0 if it diverged.
        num_steps (`int`): Inner steps taken.
    """

    meta_loss: float
    loss: float
    accuracy: float
    num_steps: int


def rollout(
    model: nn.Module,
    network: L3RSNetwork,
    task: Task,
    *,
    meta_loss: MetaLoss | None = None,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
) -> Rollout:
    """
    Scores one candidate on one task with the very optimizer that ships.

    Args:
        model (`nn.Module`): Holds the weights during the inner loop; its state is overwritten.
        network ([`L3RSNetwork`]): The candidate.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What to fine-tune on.
        meta_loss ([`MetaLoss`], *optional*): Defaults to the paper's, the final evaluation loss.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
        autocast (`Callable`, *optional*): Makes the context of forward passes, for mixed precision.

    Returns:
        [`Rollout`]
    """
    optimizer = LearnedOptimizer(
        named_trainable_parameters(model),
        network=network,
        num_training_steps=task.num_training_steps,
        synchronize_loss=False,
    )
    trajectory = fine_tune(
        model, task, optimizer, device=device, autocast=autocast, max_grad_norm=network.config.max_grad_norm
    )
    final = trajectory.evaluations.get(task.num_training_steps, Evaluation(math.inf, 0.0))
    score = (meta_loss or MetaLoss())(trajectory)
    return Rollout(score, final.loss, final.accuracy, trajectory.num_steps)
