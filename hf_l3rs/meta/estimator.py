"""What every way to estimate the gradient of the meta-loss has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch

from hf_l3rs.meta.outer import OuterState


class Estimate(NamedTuple):
    """
    An estimate of the meta-gradient, and what it cost.

    Args:
        gradient (`torch.Tensor` of shape `(dimension,)`, *optional*):
            Of the meta-loss, at the mean; finite. `None` where most inner loops failed: those that did not cannot
            speak for ψ, which goes back to where it came from.
        num_evaluations (`int`): Inner loops that were run.
        num_diverged (`int`): How many of them gave nothing usable.
        num_inner_steps (`int`): Steps that all of them took.
        cost_in_plain_steps (`float`): What these cost, with a step that is not differentiated as the unit.
        metrics (`dict[str, float]`): What else is logged; not finite where there was nothing to measure.
    """

    gradient: torch.Tensor | None
    num_evaluations: int
    num_diverged: int
    num_inner_steps: int
    cost_in_plain_steps: float
    metrics: dict[str, float]


class Estimator(Protocol):
    """
    Estimates the meta-gradient from samples, such as tasks, that processes share out with
    [`~hf_l3rs.meta.processes.Processes.gather`]: whatever a sample gives, vectors too, arrives everywhere unsummed and
    in order, and every process makes the same estimate of it. Randomness is a function of seed, generation and
    sample, and a sample that fails is counted and changes no other.
    """

    def estimate(self, state: OuterState) -> Estimate:
        """Returns the estimate at `state.mean` for the generation `state.generation`, the same on every process."""

    def cost_of_generation(self, num_steps: float) -> float:
        """Returns what a generation costs where runs have `num_steps` steps, in steps that are not differentiated."""

    def state(self) -> dict[str, torch.Tensor]:
        """
        Returns what is carried over to the next generation, the same on every process, by name; nothing by default.
        Every process must ask for it at the same time.
        """
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """
        Goes on from what [`~Estimator.state`] returned, on however many processes.

        Raises:
            CheckpointError: If it is not that of such a run.
        """
        return None
