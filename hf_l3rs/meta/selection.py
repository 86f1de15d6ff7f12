"""Which meta-weights are kept: validation on fixed tasks, the best so far, and when to stop looking."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.meta.candidates import Scorer
from hf_l3rs.meta.checkpoint import Progress
from hf_l3rs.meta.processes import Processes
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task


class Selection:
    """
    Validates the average of the meta-weights, and keeps the best in a run's [`Progress`].

    Args:
        tasks (`Sequence[Task]`): Fixed tasks on other images; nothing is validated without any.
        scorer ([`Scorer`]): Scores meta-weights on them.
        processes ([`Processes`]): Share them out.
        interval (`int`): Generations between validations; 0 for none.
        patience (`int`): Validations without improvement after which training is over; 0 for never.
        references (`Callable`, *optional*): Returns losses on the tasks to compare with, by name.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        scorer: Scorer,
        processes: Processes,
        *,
        interval: int,
        patience: int,
        references: Callable[[], dict[str, float]] | None,
    ) -> None:
        self.tasks = list(tasks)
        self.interval = interval if self.tasks else 0
        self._scorer, self._processes = scorer, processes
        self._patience, self._measure_references = patience, references

    def measure_references(self, progress: Progress, foresee: Callable[[float], None] | None = None) -> None:
        """
        Measures once in a run what it is compared with: an untrained L3RS, and what was given.

        Args:
            progress ([`Progress`]): Where to keep it.
            foresee (`Callable`, *optional*):
                Called in between with the seconds that an inner step of the untrained L3RS takes, on all processes
                together, evaluations included.
        """
        if not self.interval or progress.references:
            return
        start = time.perf_counter()
        losses = {"untrained": self._loss(L3RSNetwork(self._scorer.config).to_vector())}
        if foresee is not None:
            foresee((time.perf_counter() - start) / sum(task.num_training_steps for task in self.tasks))
        losses |= self._measure_references() if self._measure_references is not None else {}
        progress.references = {name: _infinite_if_not_finite(loss) for name, loss in losses.items()}

    def validate(self, progress: Progress) -> dict[str, float]:
        """Scores the average, and keeps it if it is the best; returns what is logged."""
        loss = self._loss(progress.state.average)
        if loss < (math.inf if progress.best_loss is None else progress.best_loss):
            progress.best_loss, progress.best_generation = loss, progress.state.generation
            progress.best_mean = progress.state.average.clone()
        best = math.inf if progress.best_loss is None else progress.best_loss
        references = {f"validation_loss_{name}": value for name, value in progress.references.items()}
        return {"validation_loss": loss, "best_validation_loss": best, **references}

    def is_over(self, progress: Progress) -> bool:
        """Whether patience has run out. This depends on the progress alone, so that a run that is over stays so."""
        if not (self._patience and self.interval):
            return False
        return progress.state.generation - (progress.best_generation or 0) >= self._patience * self.interval

    def check_outcome(self, progress: Progress) -> None:
        """
        Checks that a run which is over has something to keep.

        Raises:
            NothingToKeepError: If every candidate of it diverged, or every validation.
        """
        if progress.cost["num_diverged"] >= progress.cost["evaluations"]:
            raise NothingToKeepError(
                f"Meta-training gave nothing: all {progress.cost['evaluations']} candidates diverged or had a loss "
                "that is not a number; check the base model's weights and image processor, lower base_step or sigma, "
                "and start anew in another output_dir."
            )
        if self.interval and progress.best_loss is None:
            raise NothingToKeepError(
                "Meta-training gave nothing to keep: the meta-weights diverged at every validation; lower "
                "learning_rate or base_step, and start anew in another output_dir."
            )

    def _loss(self, vector: torch.Tensor) -> float:
        return self._scorer.mean_loss(vector, self.tasks, self._processes)


def _infinite_if_not_finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
