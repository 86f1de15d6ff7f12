"""The outer loop's arithmetic: how meta-weights move, and what every estimate of their gradient has in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.validation import MAX_SEED, Range, check_fields


@dataclass(frozen=True)
class OuterConfig:
    """How the meta-weights ψ move: by Adam, along a gradient that an estimator gives."""

    num_generations: int = field(default=200, metadata={"help": "Meta-iterations."})
    learning_rate: float = field(default=0.02, metadata={"help": "Peak step size of the meta-weights."})
    final_learning_rate: float = field(
        default=0.05, metadata={"help": "Where the cosine decay ends, as a share of learning_rate; 1: no decay."}
    )
    warmup_generations: int = field(default=0, metadata={"help": "Generations of linear warm-up."})
    averaging: float = field(
        default=0.0,
        metadata={"help": "Decay of a running average of the weights, which is what is validated and kept; 0: none."},
    )
    seed: int = field(default=0, metadata={"help": "What all randomness is derived from."})

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "num_generations": Range(low=1),
                "learning_rate": Range(above=0),
                "final_learning_rate": Range(low=0, high=1),
                "warmup_generations": Range(low=0),
                "averaging": Range(low=0, below=1),
                "seed": Range(low=0, high=MAX_SEED),
            },
        )

    def learning_rate_at(self, generation: int) -> float:
        """Returns the step size of a generation: linear warm-up, then cosine decay."""
        cosine = 0.5 * (1 + math.cos(math.pi * generation / self.num_generations))
        decayed = self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * cosine)
        return decayed * min(1.0, (generation + 1) / (self.warmup_generations + 1))


class OuterState(NamedTuple):
    """
    Where meta-training stands. All tensors but `step` are of shape `(num_meta_parameters,)`.

    Args:
        mean (`torch.Tensor`): ψ.
        average (`torch.Tensor`): Running average of ψ, which is what is validated and kept.
        exp_avg (`torch.Tensor`): Adam's first moment.
        exp_avg_sq (`torch.Tensor`): Adam's second moment.
        step (`torch.Tensor` of shape `()`): Steps that are in the moments.
        generation (`int`): Meta-iterations done.
    """

    mean: torch.Tensor
    average: torch.Tensor
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor
    step: torch.Tensor
    generation: int = 0

    @classmethod
    def start(cls, mean: torch.Tensor, generation: int = 0) -> OuterState:
        """Returns the state at `mean` with no moments and no average yet."""
        return cls(mean, mean, torch.zeros_like(mean), torch.zeros_like(mean), torch.tensor(0.0), generation)

    def retreat(self) -> OuterState:
        """Returns the next generation's state where ψ went astray: back at the average, with fresh moments."""
        return self.start(self.average, self.generation + 1)

    def move(self, config: OuterConfig, gradient: torch.Tensor) -> OuterState:
        """
        Returns the next generation's state: a step against a gradient of the meta-loss.

        Args:
            config ([`OuterConfig`]): Settings.
            gradient (`torch.Tensor` of shape `(num_meta_parameters,)`): The estimate.

        Raises:
            NothingToKeepError: If the meta-weights are not finite any more.
        """
        mean = torch.nn.Parameter(self.mean.clone())
        mean.grad = gradient
        adam = torch.optim.Adam([mean], lr=config.learning_rate_at(self.generation))
        moments = {"step": self.step, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        adam.state[mean] = {name: tensor.clone() for name, tensor in moments.items()}
        adam.step()
        if not bool(torch.isfinite(mean).all()):
            raise NothingToKeepError(
                f"The meta-weights are no longer finite after generation {self.generation + 1}; lower learning_rate, "
                "or raise sigma and final_sigma, and start anew."
            )
        average = torch.lerp(self.average, mean.detach(), 1 - config.averaging)
        return OuterState(mean.detach(), average, **adam.state[mean], generation=self.generation + 1)


class Estimate(NamedTuple):
    """
    An estimate of the meta-gradient, and what it cost.

    Args:
        gradient (`torch.Tensor` of shape `(num_meta_parameters,)`, *optional*):
            Of the meta-loss, finite. `None` where most inner loops failed: ψ then goes back to its average.
        num_evaluations (`int`): Inner loops that were run.
        num_diverged (`int`): How many of them gave nothing usable.
        num_inner_steps (`int`): Steps that all of them took.
        cost_in_plain_steps (`float`): What these cost, in steps that are not differentiated.
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
    [`~hf_l3rs.distributed.share_out`]. Randomness is a function of seed, generation and sample, so that every number
    of processes gives the same estimate. A sample that fails is counted and changes no other.
    """

    def estimate(self, state: OuterState) -> Estimate:
        """Returns the estimate at `state.mean` for the generation `state.generation`, the same on every process."""

    def cost_of_generation(self, num_steps: float) -> float:
        """Returns what a generation costs where runs have `num_steps` steps, in steps that are not differentiated."""

    def state(self) -> dict[str, torch.Tensor]:
        """Returns, on every process, what the next generation needs beside ψ, by name; every process must call it."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """
        Goes on from what [`~Estimator.state`] returned, on any number of processes.

        Raises:
            CheckpointError: If it is not that of such a run.
        """
        return None
