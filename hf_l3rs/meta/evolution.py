"""Natural evolution strategies, ask and tell, over an immutable state (paper, fig. 1 right; details ours)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.seeds import generator


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class ESConfig:
    """
    Settings of the evolution strategy; all are ours.

    Args:
        num_generations (`int`, *optional*, defaults to `200`): Meta-iterations.
        num_pairs (`int`, *optional*, defaults to `10`): Antithetic pairs of a generation: 2 `num_pairs` candidates.
        sigma (`float`, *optional*, defaults to `0.05`):
            Standard deviation σ of the noise on every meta-parameter, at first.
        final_sigma (`float`, *optional*): σ at the end, reached log-linearly; constant by default.
        learning_rate (`float`, *optional*, defaults to `0.02`): Peak step size on the mean.
        final_learning_rate (`float`, *optional*, defaults to `0.05`):
            Where the cosine decay ends, as a share of `learning_rate`; 1 keeps it constant.
        warmup_generations (`int`, *optional*, defaults to `0`): Generations of linear warm-up.
        optimizer (`str`, *optional*, defaults to `"adam"`): Which of OPTIMIZERS moves the mean.
        weight_decay (`float`, *optional*, defaults to `0.0`): Of that optimizer.
        averaging (`float`, *optional*, defaults to `0.0`):
            Decay of a running average of the mean over generations, which is what is validated and kept: it takes out
            the noise of the last steps. 0 keeps the mean itself.
        utility (`str`, *optional*, defaults to `"signed_rank"`): Which of UTILITIES turns meta-losses into weights.
        seed (`int`, *optional*, defaults to `0`): What all noise is derived from.
    """

    num_generations: int = field(default=200, metadata={"help": "Meta-iterations."})
    num_pairs: int = field(default=10, metadata={"help": "Antithetic pairs of a generation."})
    sigma: float = field(default=0.05, metadata={"help": "Standard deviation of the noise, at first."})
    final_sigma: float | None = field(default=None, metadata={"help": "That at the end; the same by default."})
    learning_rate: float = field(default=0.02, metadata={"help": "Peak step size on the mean."})
    final_learning_rate: float = field(default=0.05, metadata={"help": "End of the cosine, as a share."})
    warmup_generations: int = field(default=0, metadata={"help": "Generations of linear warm-up."})
    optimizer: str = field(default="adam", metadata={"help": "What moves the mean: adam, adamw, rmsprop or sgd."})
    weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of that optimizer."})
    averaging: float = field(default=0.0, metadata={"help": "Decay of a running average of the mean; 0: none."})
    utility: str = field(
        default="signed_rank", metadata={"help": "signed_rank, centered_rank or pair_difference of meta-losses."}
    )
    seed: int = field(default=0, metadata={"help": "What all randomness is derived from."})

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("utility", UTILITIES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        for name in ("num_generations", "num_pairs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.averaging < 1:
            raise ConfigError(f"averaging must be in [0, 1), got {self.averaging}.")
        for name in ("sigma", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a positive number, got {getattr(self, name)}.")

    def sigma_at(self, generation: int) -> float:
        """Returns σ of a generation."""
        if self.final_sigma is None:
            return self.sigma
        return self.sigma * (self.final_sigma / self.sigma) ** (generation / self.num_generations)

    def learning_rate_at(self, generation: int) -> float:
        """Returns the step size of a generation: linear warm-up, then cosine decay."""
        cosine = 0.5 * (1 + math.cos(math.pi * generation / self.num_generations))
        decayed = self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * cosine)
        return decayed * min(1.0, (generation + 1) / (self.warmup_generations + 1))


class ESState(NamedTuple):
    """
    Where the search stands.

    Args:
        mean (`torch.Tensor` of shape `(dimension,)`): ψ, the centre of the candidates.
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


def noise(config: ESConfig, generation: int, pair: int, dimension: int) -> torch.Tensor:
    """Returns the standard normal ε of one pair, of shape `(dimension,)`: the same on every process."""
    return torch.randn(dimension, generator=generator(config.seed, "noise", generation, pair))


def ask(config: ESConfig, state: ESState, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the two candidates of a pair, ψ + σε and ψ − σε, each of shape `(dimension,)`."""
    step = config.sigma_at(state.generation) * noise(config, state.generation, pair, len(state.mean))
    return state.mean + step, state.mean - step


def tell(config: ESConfig, state: ESState, meta_losses: torch.Tensor) -> ESState:
    """
    Moves the mean against the estimated gradient of the meta-loss.

    Args:
        config ([`ESConfig`]): Settings.
        state ([`ESState`]): The state that was asked; it is not changed.
        meta_losses (`torch.Tensor` of shape `(num_pairs, 2)`):
            Of ψ + σε and ψ − σε for each pair; not finite where a candidate diverged.

    Returns:
        [`ESState`]: The next generation's.
    """
    mean = torch.nn.Parameter(state.mean.clone())
    mean.grad = gradient(config, state, meta_losses)
    optimizer = OPTIMIZERS[config.optimizer](
        [mean], lr=config.learning_rate_at(state.generation), weight_decay=config.weight_decay
    )
    if state.optimizer:
        optimizer.state[mean] = {name: tensor.clone() for name, tensor in state.optimizer.items()}
    optimizer.step()
    moments: dict[str, Any] = optimizer.state[mean]
    tensors = {name: value.clone() for name, value in moments.items() if isinstance(value, torch.Tensor)}
    average = torch.lerp(state.average, mean.detach(), 1 - config.averaging)
    return ESState(mean.detach(), state.generation + 1, tensors, average)


def gradient(config: ESConfig, state: ESState, meta_losses: torch.Tensor) -> torch.Tensor:
    """Returns the estimate Σ_i w_i ε_i / (σ · num_pairs), of shape `(dimension,)`, w from the utilities."""
    weights = UTILITIES[config.utility](meta_losses.double()).to(state.mean.dtype)
    total = torch.zeros_like(state.mean)
    for pair, weight in enumerate(weights.tolist()):
        total.add_(noise(config, state.generation, pair, len(state.mean)), alpha=weight)
    return total / (config.sigma_at(state.generation) * len(weights))


def pair_difference(meta_losses: torch.Tensor) -> torch.Tensor:
    """Half the difference of each pair, which makes the gradient that of the smoothed meta-loss; heavy-tailed."""
    finite = torch.isfinite(meta_losses)
    worst = meta_losses[finite].max() if finite.any() else meta_losses.new_zeros(())
    losses = torch.where(finite, meta_losses, worst)
    return (losses[:, 0] - losses[:, 1]) / 2


def centered_rank(meta_losses: torch.Tensor) -> torch.Tensor:
    """Half the difference of the ranks among all candidates, scaled to [-0.5, 0.5]; compares tasks with each other."""
    ranks = _ranks(_worst_if_not_finite(meta_losses).flatten()).view_as(meta_losses)
    scaled = ranks / max(meta_losses.numel() - 1, 1)
    return (scaled[:, 0] - scaled[:, 1]) / 2


def signed_rank(meta_losses: torch.Tensor) -> torch.Tensor:
    """Sign of each pair's difference times the rank of its size, in [-1, 1]; for pairs with tasks of their own."""
    first, second = _worst_if_not_finite(meta_losses).unbind(1)
    difference = torch.where(first == second, 0.0, first - second)
    return difference.sign() * (_ranks(difference.abs()) + 1) / len(difference)


def _worst_if_not_finite(losses: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(losses), losses, math.inf)


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks from 0, ties sharing their average."""
    _, inverse, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double() - 1
    return (last - (counts - 1) / 2)[inverse]


UTILITIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "centered_rank": centered_rank,
    "pair_difference": pair_difference,
    "signed_rank": signed_rank,
}
