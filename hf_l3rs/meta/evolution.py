"""Natural evolution strategies: a meta-gradient from pairs of candidates (paper, fig. 1 right)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.distributed import share_out
from hf_l3rs.meta.outer import Estimate, Estimator, OuterConfig, OuterState
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.inner_loop import Autocast, fine_tune, inner_optimizer
from hf_l3rs.tasks.pools import generator


class Rollout(NamedTuple):
    """A candidate's final evaluation loss, the meta-loss, and accuracy on a task; infinite and 0 if it diverged."""

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
    """Scores meta-weights on a task with the very optimizer that ships. The model's state is overwritten."""
    optimizer = inner_optimizer(model, network, task.num_training_steps)
    max_grad_norm = network.config.max_grad_norm
    trajectory = fine_tune(model, task, optimizer, device=device, autocast=autocast, max_grad_norm=max_grad_norm)
    if not trajectory.diverged:
        loss, accuracy = trajectory.evaluations[task.num_training_steps]
        if math.isfinite(loss):
            return Rollout(loss, accuracy, trajectory.num_steps)
    return Rollout(math.inf, 0.0, trajectory.num_steps)


class Evolution(Estimator):
    """The evolution strategy. A sample is a pair of candidates, which has a task of its own."""

    def estimate(self, state: OuterState) -> Estimate:
        """Weighs the noise of the pairs by their scores."""
        pairs = share_out(self.accelerator, range(self.config.num_pairs), partial(self.score_pair, state))
        losses, accuracies, num_steps = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
        finite = torch.isfinite(losses)
        num_inner_steps = int(num_steps.sum())
        return Estimate(
            gradient=gradient(self.config, state, losses),
            num_evaluations=finite.numel(),
            num_diverged=int((~finite).sum()),
            num_inner_steps=num_inner_steps,
            cost_in_plain_steps=num_inner_steps,
            metrics={"meta_loss": float(losses[finite].mean()), "accuracy": float(accuracies[finite].mean())},
        )

    def score_pair(self, state: OuterState, pair: int) -> list[Rollout]:
        """Returns the results of both candidates of a pair, on one task."""
        task, network = self.tasks.draw(self.config.seed, state.generation, pair), L3RSNetwork(self.network.config)
        device, autocast = self.accelerator.device, self.accelerator.autocast
        results = []
        for vector in ask(self.config, state, pair):
            network.load_vector(vector)
            results.append(rollout(task.model, network, task, device=device, autocast=autocast))
        return results


def noise(config: OuterConfig, generation: int, pair: int, dimension: int) -> torch.Tensor:
    """Returns the standard normal ε of one pair, of shape `(dimension,)`: the same on every process."""
    return torch.randn(dimension, generator=generator(config.seed, "noise", generation, pair))


def ask(config: OuterConfig, state: OuterState, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the two candidates of a pair, ψ + σε and ψ − σε, each of shape `(dimension,)`."""
    step = config.sigma * noise(config, state.generation, pair, len(state.mean))
    return state.mean + step, state.mean - step


def gradient(config: OuterConfig, state: OuterState, meta_losses: torch.Tensor) -> torch.Tensor:
    """Returns Σ_i w_i ε_i / (σ · num_pairs), with w from the ranks of meta-losses of shape `(num_pairs, 2)`."""
    weights = signed_ranks(meta_losses.double()).to(state.mean.dtype)
    total = torch.zeros_like(state.mean)
    for pair, weight in enumerate(weights.tolist()):
        total.add_(noise(config, state.generation, pair, len(state.mean)), alpha=weight)
    return total / (config.sigma * len(weights))


def signed_ranks(meta_losses: torch.Tensor) -> torch.Tensor:
    """Returns the sign and rank of each pair's difference, in [-1, 1]; ties share a rank, infinities are the worst."""
    first, second = torch.where(torch.isfinite(meta_losses), meta_losses, math.inf).unbind(1)
    difference = torch.where(first == second, 0.0, first - second)
    _, inverse, counts = difference.abs().unique(sorted=True, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts - 1) / 2)[inverse]  # from 1
    return difference.sign() * ranks / len(difference)
