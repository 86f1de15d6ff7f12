"""Scores meta-weights on tasks, on one process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator

from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.candidates import MetaLoss, Rollout, rollout, rollout_population
from hf_l3rs.meta.processes import Processes
from hf_l3rs.tasks.task import Task


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

    def score_together(self, vectors: Sequence[torch.Tensor], tasks: Sequence[Task]) -> list[Rollout]:
        """Returns the same for several, each on its task, whose inner loops run as one; horizons must be equal."""
        return rollout_population(tasks[0].model, self._network, torch.stack(list(vectors)), tasks, **self._how)
