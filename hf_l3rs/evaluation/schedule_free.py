"""Schedule-free optimizers (Defazio et al., arXiv 2405.15682), run and evaluated as their authors ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_l3rs.evaluation.recalibration import RecalibratedLearner
from hf_l3rs.tasks.inner_loop import ModelLearner
from hf_l3rs.tasks.model import State


class _SwitchedLearner(ModelLearner):
    """Switches the optimizer between the point where gradients are taken and the one that is evaluated."""

    optimizer: Any

    def start(self, initial_state: State) -> None:
        super().start(initial_state)
        self.optimizer.train()

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the average in the model; to there and back, weights are rounded, so the caller restores them."""
        self.optimizer.eval()
        with super().at_point_of_evaluation():
            yield
        self.optimizer.train()


class ScheduleFreeLearner(RecalibratedLearner, _SwitchedLearner):
    """
    One model and a schedule-free optimizer. Gradients are taken at one point and the model is evaluated at another,
    the average, between which the optimizer's `train` and `eval` switch. Running statistics of batch norm belong to
    the first, so they are taken again at the second.

    Args:
        args, kwargs: Of [`~hf_l3rs.tasks.inner_loop.ModelLearner`].
    """
