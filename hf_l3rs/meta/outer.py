"""The outer loop: its settings, how meta-weights move, and what every estimate of their gradient has in common."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from hf_l3rs.errors import ConfigError, NothingToKeepError
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Tasks
from hf_l3rs.validation import MAX_SEED, Range, check_fields


# What each estimator reads, beside the settings that all of them do.
_OF_GRADIENTS = ("num_tasks", "second_order", "feature_gradient", "segment_steps")
ESTIMATORS = {
    "evolution": ("num_pairs", "sigma"),
    "gradient": _OF_GRADIENTS,
    "segments": (*_OF_GRADIENTS, "lookahead_steps", "num_whole_runs"),
}

# What a differentiated inner step costs, its share of the way back included, in steps that are not differentiated:
# medians of recipes/benchmark_meta_training.py on the embedded ResNet. Others differ with the model.
SECOND_ORDER_STEP_COST, FIRST_ORDER_STEP_COST = 3.2, 1.25


@dataclass(frozen=True)
class OuterConfig:
    """The outer loop: how the meta-weights move, by Adam, and what estimates their gradient."""

    estimator: str = field(
        default="evolution",
        metadata={"help": "Where the meta-gradient comes from: evolution (paper); gradient, reverse mode through "
                  "whole runs, for a hundredth of the cost; or segments of long runs, one in each generation."},
    )  # fmt: skip
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
    num_pairs: int = field(default=10, metadata={"help": "Evolution: antithetic pairs of candidates of a generation."})
    sigma: float = field(
        default=0.05, metadata={"help": "Evolution: standard deviation of the noise on every meta-parameter."}
    )
    num_tasks: int = field(default=4, metadata={"help": "Gradient, segments: tasks of a generation."})
    second_order: bool = field(
        default=True,
        metadata={"help": "Differentiate inner gradients, too; else they are constants, for less time."},
    )
    feature_gradient: bool = field(
        default=False, metadata={"help": "Differentiate what the network sees, too, beside what it decides."}
    )
    segment_steps: int = field(
        default=0,
        metadata={"help": "Gradient: inner steps whose graph is held at a time; 0: all, which is fastest; the root of "
                  "the horizon takes least memory. Segments: steps that a run takes in a generation."},
    )  # fmt: skip
    lookahead_steps: int = field(
        default=0, metadata={"help": "Segments: differentiated steps beyond a segment's end after which it is judged."}
    )
    num_whole_runs: int = field(
        default=0,
        metadata={"help": "Segments: how many of num_tasks are whole runs of at most segment_steps, from the start."},
    )

    def __post_init__(self) -> None:
        rules: dict[str, Any] = {name: Range(low=1) for name in ("num_generations", "num_pairs", "num_tasks")}
        rules |= {name: Range(low=0) for name in ("warmup_generations", "segment_steps", "lookahead_steps")}
        rules |= {name: Range(above=0) for name in ("learning_rate", "sigma")}
        rules |= {"final_learning_rate": Range(low=0, high=1), "averaging": Range(low=0, below=1)}
        rules |= {"estimator": tuple(ESTIMATORS), "seed": Range(low=0, high=MAX_SEED)}
        check_fields(self, rules)
        check_fields(self, {"num_whole_runs": Range(low=0, high=self.num_tasks)})
        if self.estimator == "segments" and not self.segment_steps:
            raise ConfigError(
                "The estimator segments needs segment_steps of at least 1, got 0; set it, such as to 20, or set "
                "estimator to gradient."
            )

    @property
    def step_cost(self) -> float:
        """What a differentiated inner step costs, in plain ones; a run whose graph is held in parts is run twice."""
        cost = SECOND_ORDER_STEP_COST if self.second_order else FIRST_ORDER_STEP_COST
        return cost + (1 if self.segment_steps and self.estimator != "segments" else 0)

    def learning_rate_at(self, generation: int) -> float:
        """Returns the step size of a generation: linear warm-up, then cosine decay."""
        cosine = 0.5 * (1 + math.cos(math.pi * generation / self.num_generations))
        decayed = self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * cosine)
        return decayed * min(1.0, (generation + 1) / (self.warmup_generations + 1))

    def used(self) -> dict[str, Any]:
        """Returns the settings that the estimator reads, and none of the others'."""
        unused = {name for names in ESTIMATORS.values() for name in names} - {*ESTIMATORS[self.estimator]}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in unused}


class OuterState(NamedTuple):
    """Where meta-training stands. All tensors but `step` are of shape `(num_meta_parameters,)`."""

    mean: torch.Tensor  # ψ
    average: torch.Tensor  # of ψ over generations
    exp_avg: torch.Tensor  # of Adam, as the next two
    exp_avg_sq: torch.Tensor
    step: torch.Tensor
    generation: int = 0  # so many are done

    @classmethod
    def start(cls, mean: torch.Tensor, generation: int = 0) -> OuterState:
        """Returns the state at `mean` with no moments and no average yet."""
        return cls(mean, mean, torch.zeros_like(mean), torch.zeros_like(mean), torch.tensor(0.0), generation)

    def retreat(self) -> OuterState:
        """Returns the next generation's state where ψ went astray: back at the average, with fresh moments."""
        return self.start(self.average, self.generation + 1)

    def move(self, config: OuterConfig, gradient: torch.Tensor) -> OuterState:
        """Returns the next generation's state: a step against an estimate of the meta-loss's gradient."""
        mean = torch.nn.Parameter(self.mean.clone())
        mean.grad = gradient
        adam = torch.optim.Adam([mean], lr=config.learning_rate_at(self.generation))
        moments = {"step": self.step, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        adam.state[mean] = {name: tensor.clone() for name, tensor in moments.items()}
        adam.step()
        if not bool(torch.isfinite(mean).all()):
            raise NothingToKeepError(
                f"The meta-weights are no longer finite after generation {self.generation + 1}; lower learning_rate, "
                "or raise sigma, and start anew."
            )
        average = torch.lerp(self.average, mean.detach(), 1 - config.averaging)
        return OuterState(mean.detach(), average, **adam.state[mean], generation=self.generation + 1)


class Estimate(NamedTuple):
    """An estimate of the meta-gradient, and what it cost."""

    gradient: torch.Tensor | None  # finite; None where most inner loops failed: ψ then goes back to its average
    num_evaluations: int
    num_diverged: int  # evaluations that gave nothing usable
    num_inner_steps: int
    cost_in_plain_steps: float  # what the steps cost, in steps that are not differentiated
    metrics: dict[str, float]  # are logged


class Estimator(ABC):
    """
    Estimates the meta-gradient from samples that processes share out. Randomness is a function of seed, generation and
    sample, never of the number of processes. A sample that fails is counted and changes no other.
    """

    def __init__(self, config: OuterConfig, tasks: Tasks, network: L3RSNetwork, accelerator: Accelerator) -> None:
        self.config, self.tasks, self.network, self.accelerator = config, tasks, network, accelerator

    @abstractmethod
    def estimate(self, state: OuterState) -> Estimate:
        """Returns the estimate at `state.mean` for the generation `state.generation`, the same on every process."""

    def state(self) -> dict[str, torch.Tensor]:
        """Returns, on every process, what the next generation needs beside ψ, by name; every process must call it."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:  # noqa: B027 - most carry nothing over
        """Goes on from what [`~Estimator.state`] returned, on any number of processes."""
