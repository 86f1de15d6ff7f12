"""Scores meta-weights on tasks, on one process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from hf_l3rs.meta.processes import Processes
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.inner_loop import Autocast, Evaluation, Trajectory, fine_tune, inner_optimizer
from hf_l3rs.validation import Range, check_fields


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
        check_fields(self, {"trajectory_weight": Range(low=0, high=1), "accuracy_weight": Range(low=0)})

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
    trajectory = fine_tune(
        model,
        task,
        inner_optimizer(model, network, task.num_training_steps),
        device=device,
        autocast=autocast,
        max_grad_norm=network.config.max_grad_norm,
    )
    final = Evaluation(math.inf, 0.0) if trajectory.diverged else trajectory.evaluations[task.num_training_steps]
    return Rollout((meta_loss or MetaLoss())(trajectory), *final, trajectory.num_steps)


class Scorer:
    """
    Runs the inner loops of meta-weights.

    Args:
        config ([`L3RSConfig`]): Of all meta-weights.
        meta_loss ([`MetaLoss`]): What they are judged by.
        accelerator (`Accelerator`): Names device and precision.
    """

    def __init__(self, config: L3RSConfig, meta_loss: MetaLoss, accelerator: Accelerator) -> None:
        self.config = config
        self._network = L3RSNetwork(config)
        self._how = {"meta_loss": meta_loss, "device": accelerator.device, "autocast": accelerator.autocast}

    def score(self, vector: torch.Tensor, task: Task) -> Rollout:
        """Returns how meta-weights of shape `(dimension,)` do on a task."""
        self._network.load_vector(vector)
        return rollout(task.model, self._network, task, **self._how)

    def mean_loss(self, vector: torch.Tensor, tasks: Sequence[Task], processes: Processes) -> float:
        """Mean final evaluation loss over tasks that processes share, in nats; infinite if one of them diverged."""

        def score(indices: range) -> torch.Tensor:
            losses = [self.score(vector, tasks[index]).loss for index in indices]
            return torch.tensor(losses, dtype=torch.float64)

        mean = float(processes.gather((len(tasks),), 1, score).mean())
        return mean if math.isfinite(mean) else math.inf
