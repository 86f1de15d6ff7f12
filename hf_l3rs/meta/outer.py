"""What every way to estimate the gradient of the meta-loss has in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.validation import MAX_SEED, Range, check_fields


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class OuterConfig:
    """
    How the mean moves; all are ours.

    Args:
        num_generations (`int`, *optional*, defaults to `200`): Meta-iterations.
        learning_rate (`float`, *optional*, defaults to `0.02`): Peak step size on the mean.
        final_learning_rate (`float`, *optional*, defaults to `0.05`):
            Where the cosine decay ends, as a share of `learning_rate` in [0, 1]; 1 keeps it constant.
        warmup_generations (`int`, *optional*, defaults to `0`): Generations of linear warm-up.
        optimizer (`str`, *optional*, defaults to `"adam"`): Which of OPTIMIZERS moves the mean.
        weight_decay (`float`, *optional*, defaults to `0.0`): Of that optimizer.
        averaging (`float`, *optional*, defaults to `0.0`):
            Decay of a running average of the mean over generations, which is what is validated and kept: it takes out
            the noise of the last steps. 0 keeps the mean itself.
        seed (`int`, *optional*, defaults to `0`): What all randomness is derived from.
    """

    num_generations: int = field(default=200, metadata={"help": "Meta-iterations."})
    learning_rate: float = field(default=0.02, metadata={"help": "Peak step size on the mean."})
    final_learning_rate: float = field(default=0.05, metadata={"help": "End of the cosine, as a share."})
    warmup_generations: int = field(default=0, metadata={"help": "Generations of linear warm-up."})
    optimizer: str = field(default="adam", metadata={"help": "What moves the mean: adam, adamw, rmsprop or sgd."})
    weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of that optimizer."})
    averaging: float = field(default=0.0, metadata={"help": "Decay of a running average of the mean; 0: none."})
    seed: int = field(default=0, metadata={"help": "What all randomness is derived from."})

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "num_generations": Range(low=1),
                "learning_rate": Range(above=0),
                "final_learning_rate": Range(low=0, high=1),
                "warmup_generations": Range(low=0),
                "optimizer": OPTIMIZERS,
                "weight_decay": Range(low=0),
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
    Where meta-training stands.

    Args:
        mean (`torch.Tensor` of shape `(dimension,)`): ψ, the meta-weights.
        generation (`int`): Meta-iterations done.
        optimizer (`dict`, *optional*): State of the optimizer of the mean: tensors by name; empty at first.
        running_mean (`torch.Tensor`, *optional*): Average of ψ over generations; absent at first.
    """

    mean: torch.Tensor
    generation: int = 0
    optimizer: dict[str, torch.Tensor] = {}
    running_mean: torch.Tensor | None = None

    @property
    def average(self) -> torch.Tensor:
        """What is validated and kept: the running average of ψ, of shape `(dimension,)`; at first ψ itself."""
        return self.mean if self.running_mean is None else self.running_mean


def retreat(state: OuterState) -> OuterState:
    """
    Returns the next generation's state where ψ has gone astray: back at the running average, which is behind it, with
    nothing remembered of the way. Without `averaging` ψ stays where it is.
    """
    return OuterState(state.average, state.generation + 1, running_mean=state.average)


def move(config: OuterConfig, state: OuterState, gradient: torch.Tensor) -> OuterState:
    """
    Moves the mean against a gradient of the meta-loss.

    Args:
        config ([`OuterConfig`]): Settings.
        state ([`OuterState`]): Where the gradient was estimated; it is not changed.
        gradient (`torch.Tensor` of shape `(dimension,)`): The estimate.

    Returns:
        [`OuterState`]: The next generation's.

    Raises:
        NothingToKeepError: If the mean is not finite any more.
    """
    mean = torch.nn.Parameter(state.mean.clone())
    mean.grad = gradient
    optimizer = OPTIMIZERS[config.optimizer](
        [mean], lr=config.learning_rate_at(state.generation), weight_decay=config.weight_decay
    )
    if state.optimizer:
        optimizer.state[mean] = {name: tensor.clone() for name, tensor in state.optimizer.items()}
    optimizer.step()
    if not bool(torch.isfinite(mean).all()):
        raise NothingToKeepError(
            f"The meta-weights are no longer finite after generation {state.generation + 1}; lower learning_rate, or "
            "raise sigma and final_sigma, and start anew."
        )
    moments = {name: value.clone() for name, value in optimizer.state[mean].items() if torch.is_tensor(value)}
    average = torch.lerp(state.average, mean.detach(), 1 - config.averaging)
    return OuterState(mean.detach(), state.generation + 1, moments, average)


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
