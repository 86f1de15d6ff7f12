"""Natural evolution strategies: an estimate from pairs of candidates (paper, fig. 1 right; details ours)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from hf_l3rs.meta.candidates import Rollout, Scorer
from hf_l3rs.meta.outer import Estimate, Estimator, OuterConfig, OuterState
from hf_l3rs.meta.processes import Processes
from hf_l3rs.tasks.distribution import Task, Tasks
from hf_l3rs.tasks.pools import generator
from hf_l3rs.validation import Range, check_fields


@dataclass(frozen=True)
class ESConfig(OuterConfig):
    """
    Settings of the evolution strategy, beside those of [`OuterConfig`]; all are ours.

    Args:
        num_pairs (`int`, *optional*, defaults to `10`): Antithetic pairs of a generation: 2 `num_pairs` candidates.
        sigma (`float`, *optional*, defaults to `0.05`):
            Standard deviation σ of the noise on every meta-parameter, at first.
        final_sigma (`float`, *optional*): σ at the end, reached log-linearly; constant by default.
        utility (`str`, *optional*, defaults to `"signed_rank"`): Which of UTILITIES turns meta-losses into weights.
    """

    num_pairs: int = field(default=10, metadata={"help": "Antithetic pairs of a generation."})
    sigma: float = field(default=0.05, metadata={"help": "Standard deviation of the noise, at first."})
    final_sigma: float | None = field(default=None, metadata={"help": "That at the end; the same by default."})
    utility: str = field(
        default="signed_rank", metadata={"help": "signed_rank, centered_rank or pair_difference of meta-losses."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = Range(above=0)
        check_fields(
            self, {"num_pairs": Range(low=1), "sigma": positive, "final_sigma": positive, "utility": UTILITIES}
        )

    def sigma_at(self, generation: int) -> float:
        """Returns σ of a generation."""
        if self.final_sigma is None:
            return self.sigma
        return self.sigma * (self.final_sigma / self.sigma) ** (generation / self.num_generations)


class Evolution(Estimator):
    """
    The evolution strategy as an [`~hf_l3rs.meta.outer.Estimator`]. A sample is a pair of candidates.

    Args:
        config ([`ESConfig`]): Settings.
        tasks ([`~hf_l3rs.tasks.distribution.Tasks`]): What candidates are scored on.
        scorer ([`Scorer`]): Scores them.
        processes ([`Processes`]): Share the pairs out.
        task_per_pair (`bool`): Whether each pair has a task of its own, or a generation shares one.
    """

    def __init__(
        self,
        config: ESConfig,
        tasks: Tasks,
        scorer: Scorer,
        processes: Processes,
        *,
        task_per_pair: bool,
    ) -> None:
        self.config, self.tasks, self.scorer, self.processes = config, tasks, scorer, processes
        self.task_per_pair = task_per_pair

    def estimate(self, state: OuterState) -> Estimate:
        """Weighs the noise of the pairs by their scores; see [`~hf_l3rs.meta.outer.Estimator.estimate`]."""
        scores = dict(zip(Rollout._fields, self.scores(state).unbind(-1)))
        finite = torch.isfinite(scores["meta_loss"])
        return Estimate(
            gradient=gradient(self.config, state, scores["meta_loss"]),
            num_evaluations=finite.numel(),
            num_diverged=int((~finite).sum()),
            num_inner_steps=(num_inner_steps := int(scores["num_steps"].sum())),
            cost_in_plain_steps=num_inner_steps,
            metrics={
                **{name: float(scores[name][finite].mean()) for name in ("meta_loss", "loss", "accuracy")},
                "sigma": self.config.sigma_at(state.generation),
            },
        )

    def cost_of_generation(self, num_steps: float) -> float:
        """See [`~hf_l3rs.meta.outer.Estimator.cost_of_generation`]."""
        return 2 * self.config.num_pairs * num_steps

    def scores(self, state: OuterState) -> torch.Tensor:
        """Returns the fields of [`Rollout`] for all candidates, of shape `(num_pairs, 2, num_fields)`."""
        shape = (self.config.num_pairs, 2, len(Rollout._fields))
        return self.processes.gather(shape, 1, partial(self._score, state))

    def _score(self, state: OuterState, pairs: range) -> torch.Tensor:
        vectors: list[torch.Tensor] = []
        tasks: list[Task] = []
        for pair in pairs:
            vectors += ask(self.config, state, pair)
            tasks += [self.tasks.draw(self.config.seed, state.generation, pair if self.task_per_pair else 0)] * 2
        rollouts = [self.scorer.score(vector, task) for vector, task in zip(vectors, tasks)]
        return torch.tensor(rollouts, dtype=torch.float64).unflatten(0, (len(pairs), 2))


def noise(config: ESConfig, generation: int, pair: int, dimension: int) -> torch.Tensor:
    """Returns the standard normal ε of one pair, of shape `(dimension,)`: the same on every process."""
    return torch.randn(dimension, generator=generator(config.seed, "noise", generation, pair))


def ask(config: ESConfig, state: OuterState, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the two candidates of a pair, ψ + σε and ψ − σε, each of shape `(dimension,)`."""
    step = config.sigma_at(state.generation) * noise(config, state.generation, pair, len(state.mean))
    return state.mean + step, state.mean - step


def gradient(config: ESConfig, state: OuterState, meta_losses: torch.Tensor) -> torch.Tensor:
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
