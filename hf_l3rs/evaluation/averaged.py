"""Evaluation at an average over the iterates, which DoG asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hf_l3rs.evaluation.rivals import DOG_PACKAGE, imported
from hf_l3rs.tasks.inner_loop import ModelLearner
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch


class AveragedLearner(ModelLearner):
    """
    One model and an optimizer, evaluated at the polynomial-decay average of its weights and of batch norm's
    statistics, by the averager and with the decay of DoG's authors. Evaluations on the way change nothing that
    follows.

    Args:
        args, kwargs: Of [`~hf_l3rs.tasks.inner_loop.ModelLearner`].

    Raises:
        ConfigError: At the start, if the averager's package is not installed.
    """

    averager: Any

    def start(self, initial_state: State) -> None:
        super().start(initial_state)
        self.averager = imported(DOG_PACKAGE, "dog", "PolynomialDecayAverager")(self.model)

    def step(self, batch: Batch) -> torch.Tensor:
        loss = super().step(batch)
        self.averager.step()
        return loss

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the average in the model."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.averager.averaged_model.state_dict())
        with super().at_point_of_evaluation():
            yield
        self.model.load_state_dict(before)
