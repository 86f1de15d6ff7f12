"""Evaluation with running statistics of batch norm that belong to the weights that are evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hf_l3rs.tasks.inner_loop import ModelLearner
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch


# So many of the last training batches give the statistics of an evaluation, as schedule-free's authors have it.
NUM_RECALIBRATION_BATCHES = 50


class RecalibratedLearner(ModelLearner):
    """
    One model and any optimizer, evaluated with statistics of batch norm that are taken again over the last training
    batches. In short runs the running ones lag behind the weights, whatever the optimizer. Evaluations on the way
    change nothing that follows.

    Args:
        args, kwargs: Of [`~hf_l3rs.tasks.inner_loop.ModelLearner`].
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: deque[Batch] = deque(maxlen=NUM_RECALIBRATION_BATCHES if self._norms else 0)

    def start(self, initial_state: State) -> None:
        super().start(initial_state)
        self._seen.clear()

    def step(self, batch: Batch) -> torch.Tensor:
        self._seen.append(batch)
        return super().step(batch)

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the weights that are evaluated in the model, with statistics of their own."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        with super().at_point_of_evaluation():
            self._recalibrate()
            yield
        self.model.load_state_dict(before)

    @torch.no_grad()
    def _recalibrate(self) -> None:
        self.model.eval()  # with dropout off: it would draw random numbers
        for norm in self._norms:
            norm.train()
        for batch in self._seen:
            with self.autocast():
                self.model(pixel_values=batch.to(self.device).pixel_values)
