"""Natural evolution strategies: a meta-gradient from pairs of candidates (paper, fig. 1 right)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from hf_l3rs.distributed import share_out
from hf_l3rs.meta.outer import Estimate, Estimator, OuterConfig, OuterState
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task, Tasks
from hf_l3rs.tasks.inner_loop import Autocast, fine_tune, inner_optimizer
from hf_l3rs.tasks.pools import generator
from hf_l3rs.validation import Range, check_fields


@dataclass(frozen=True)
class ESConfig(OuterConfig):
    """Settings of the evolution strategy, beside those of [`OuterConfig`]."""

    num_pairs: int = field(default=10, metadata={"help": "Antithetic pairs of candidates of a generation."})
    sigma: float = field(
        default=0.05, metadata={"help": "Standard deviation of the noise on every meta-parameter, at first."}
    )
    final_sigma: float | None = field(
        default=None, metadata={"help": "That at the end, reached log-linearly; the same by default."}
    )
    utility: str = field(
        default="signed_rank",
        metadata={"help": "What meta-losses weigh: signed_rank within pairs, or centered_rank among all candidates."},
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


class Rollout(NamedTuple):
    """
    A candidate's result on a task.

    Args:
        loss (`float`): Final evaluation loss, the meta-loss; infinite if the run diverged.
        accuracy (`float`): Final accuracy; 0 if the run diverged.
        num_steps (`int`): Inner steps taken.
    """

    loss: float
    accuracy: float
    num_steps: int


def rollout(
    model: nn.Module,
    network: L3RSNetwork,
    task: Task,
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
) -> Rollout:
    """
    Scores meta-weights on a task with the very optimizer that ships.

    Args:
        model (`nn.Module`): Holds the weights during the inner loop; its state is overwritten.
        network ([`L3RSNetwork`]): The meta-weights.
        task ([`~hf_l3rs.tasks.distribution.Task`]): What to fine-tune on.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
        autocast (`Callable`, *optional*): Makes the context of forward passes, for mixed precision.

    Returns:
        [`Rollout`]
    """
    optimizer = inner_optimizer(model, network, task.num_training_steps)
    max_grad_norm = network.config.max_grad_norm
    trajectory = fine_tune(model, task, optimizer, device=device, autocast=autocast, max_grad_norm=max_grad_norm)
    if not trajectory.diverged:
        loss, accuracy = trajectory.evaluations[task.num_training_steps]
        if math.isfinite(loss):
            return Rollout(loss, accuracy, trajectory.num_steps)
    return Rollout(math.inf, 0.0, trajectory.num_steps)


class Evolution(Estimator):
    """
    The evolution strategy as an [`~hf_l3rs.meta.outer.Estimator`]. A sample is a pair of candidates.

    Args:
        config ([`ESConfig`]): Settings.
        tasks ([`~hf_l3rs.tasks.distribution.Tasks`]): What candidates are scored on.
        network_config ([`L3RSConfig`]): Of all candidates.
        accelerator (`Accelerator`): Shares the pairs out; names device and precision.
        task_per_pair (`bool`): Whether each pair has a task of its own, or a generation shares one.
    """

    def __init__(
        self,
        config: ESConfig,
        tasks: Tasks,
        network_config: L3RSConfig,
        accelerator: Accelerator,
        *,
        task_per_pair: bool = True,
    ) -> None:
        self.config, self.tasks, self.task_per_pair = config, tasks, task_per_pair
        self._accelerator, self._network = accelerator, L3RSNetwork(network_config)

    def estimate(self, state: OuterState) -> Estimate:
        """Weighs the noise of the pairs by their scores; see [`~hf_l3rs.meta.outer.Estimator.estimate`]."""
        pairs = share_out(self._accelerator, range(self.config.num_pairs), partial(self.score_pair, state))
        losses, accuracies, num_steps = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
        finite = torch.isfinite(losses)
        num_inner_steps = int(num_steps.sum())
        return Estimate(
            gradient=gradient(self.config, state, losses),
            num_evaluations=finite.numel(),
            num_diverged=int((~finite).sum()),
            num_inner_steps=num_inner_steps,
            cost_in_plain_steps=num_inner_steps,
            metrics={
                "meta_loss": float(losses[finite].mean()),
                "accuracy": float(accuracies[finite].mean()),
                "sigma": self.config.sigma_at(state.generation),
            },
        )

    def cost_of_generation(self, num_steps: float) -> float:
        """See [`~hf_l3rs.meta.outer.Estimator.cost_of_generation`]."""
        return 2 * self.config.num_pairs * num_steps

    def score_pair(self, state: OuterState, pair: int) -> list[Rollout]:
        """Returns the results of both candidates of a pair, on one task."""
        task = self.tasks.draw(self.config.seed, state.generation, pair if self.task_per_pair else 0)
        device, autocast = self._accelerator.device, self._accelerator.autocast
        results = []
        for vector in ask(self.config, state, pair):
            self._network.load_vector(vector)
            results.append(rollout(task.model, self._network, task, device=device, autocast=autocast))
        return results


def noise(config: ESConfig, generation: int, pair: int, dimension: int) -> torch.Tensor:
    """Returns the standard normal ε of one pair, of shape `(dimension,)`: the same on every process."""
    return torch.randn(dimension, generator=generator(config.seed, "noise", generation, pair))


def ask(config: ESConfig, state: OuterState, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the two candidates of a pair, ψ + σε and ψ − σε, each of shape `(dimension,)`."""
    step = config.sigma_at(state.generation) * noise(config, state.generation, pair, len(state.mean))
    return state.mean + step, state.mean - step


def gradient(config: ESConfig, state: OuterState, meta_losses: torch.Tensor) -> torch.Tensor:
    """Returns Σ_i w_i ε_i / (σ · num_pairs), with w from the utilities of meta-losses of shape `(num_pairs, 2)`."""
    weights = UTILITIES[config.utility](meta_losses.double()).to(state.mean.dtype)
    total = torch.zeros_like(state.mean)
    for pair, weight in enumerate(weights.tolist()):
        total.add_(noise(config, state.generation, pair, len(state.mean)), alpha=weight)
    return total / (config.sigma_at(state.generation) * len(weights))


def centered_rank(meta_losses: torch.Tensor) -> torch.Tensor:
    """Half the difference of the ranks among all candidates, scaled to [-0.5, 0.5]: where all have one task."""
    ranks = _ranks(_worst_if_not_finite(meta_losses).flatten()).view_as(meta_losses)
    scaled = ranks / max(meta_losses.numel() - 1, 1)
    return (scaled[:, 0] - scaled[:, 1]) / 2


def signed_rank(meta_losses: torch.Tensor) -> torch.Tensor:
    """Sign of each pair's difference times the rank of its size, in [-1, 1]: for pairs with tasks of their own."""
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
    "signed_rank": signed_rank,
}
