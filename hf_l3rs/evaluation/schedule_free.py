"""Schedule-free AdamW (Defazio et al., arXiv 2405.15682), run and evaluated as its authors ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.recalibration import RecalibratedLearner
from hf_l3rs.tasks.task import State


def schedule_free_adamw(parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """
    Returns schedule-free AdamW with its package's settings, to be trained by [`ScheduleFreeLearner`].

    Raises:
        ConfigError: If its package is not installed.
    """
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError as error:
        raise ConfigError(
            "The baseline Schedule-free AdamW needs the package schedulefree, which cannot be imported; install it "
            "with `pip install hf_l3rs[rivals]`, or name another baseline."
        ) from error
    return AdamWScheduleFree(parameters, lr=learning_rate)


class ScheduleFreeLearner(RecalibratedLearner):
    """
    One model and a schedule-free optimizer. Gradients are taken at one point and the model is evaluated at another,
    the average, between which the optimizer's `train` and `eval` switch. Running statistics of batch norm belong to
    the first, so they are taken again at the second.

    Args:
        args, kwargs: Of [`~hf_l3rs.tasks.inner_loop.ModelLearner`].
    """

    optimizer: Any

    def start(self, initial_states: Sequence[State]) -> None:
        super().start(initial_states)
        self.optimizer.train()

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the average in the model; to there and back, weights are rounded, so the caller restores them."""
        self.optimizer.eval()
        yield
        self.optimizer.train()
