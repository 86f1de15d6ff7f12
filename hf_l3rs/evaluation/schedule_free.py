"""Schedule-free AdamW (Defazio et al., arXiv 2405.15682), run and evaluated as its authors ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.inner_loop import Evaluation, ModelLearner
from hf_l3rs.tasks.task import Batch, State


# So many of the last training batches give the running statistics of an evaluation; the authors' number.
NUM_RECALIBRATION_BATCHES = 50


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


class ScheduleFreeLearner(ModelLearner):
    """
    One model and a schedule-free optimizer. Gradients are taken at one point and the model is evaluated at another,
    the average, between which the optimizer's `train` and `eval` switch. Running statistics of batch norm belong to
    the first, so they are taken again at the second. In short runs, fresh statistics alone would lower the loss of any
    optimizer, and the others do without. Evaluations on the way change nothing that follows.

    Args:
        args, kwargs: Of [`~hf_l3rs.tasks.inner_loop.ModelLearner`].
    """

    optimizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._norms = [
            layer for layer in self.model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats
        ]
        self._seen: deque[Batch] = deque(maxlen=NUM_RECALIBRATION_BATCHES if self._norms else 0)

    def start(self, initial_states: Sequence[State]) -> None:
        super().start(initial_states)
        self._seen.clear()
        self.optimizer.train()

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        self._seen.extend(batches)
        return super().step(batches)

    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.optimizer.eval()
        self._recalibrate()
        evaluated = super().evaluate(evaluations)
        self.optimizer.train()
        self.model.load_state_dict(before)  # to the average and back, weights are rounded
        return evaluated

    @torch.no_grad()
    def _recalibrate(self) -> None:
        self.model.eval()  # the authors leave dropout on, which would draw random numbers
        for norm in self._norms:
            norm.train()
        for batch in self._seen:
            with self.autocast():
                self.model(pixel_values=batch.to(self.device).pixel_values)
