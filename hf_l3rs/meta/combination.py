"""Two estimates of one gradient as one: each counts for as much as it can be trusted (arXiv 1810.10180)."""

from __future__ import annotations

import torch


def antithetic(differences: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """
    Returns one estimate by evolution for every pair of candidates, (L₊ − L₋) ε / (2σ), unbiased for the meta-loss
    smoothed by the noise.

    Args:
        differences (`torch.Tensor` of shape `(num_pairs,)`): L₊ − L₋.
        noise (`torch.Tensor` of shape `(num_pairs, dimension)`): ε, standard normal.
        sigmas (`torch.Tensor` of shape `(num_pairs,)`): σ.
    """
    return (differences / (2 * sigmas))[:, None] * noise


def variance_weights(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """
    Returns the weight of the first of two estimates in their sum with the least variance; the second has the rest.

    Where one of the two has fewer than two samples, of which no variance is known, the other one counts alone.

    Args:
        first (`torch.Tensor` of shape `(num_samples, dimension)`): Samples, whose mean is the estimate.
        second (`torch.Tensor` of shape `(num_others, dimension)`): Of the other one.

    Returns:
        `torch.Tensor` of shape `(dimension,)`: Weights in [0, 1].
    """
    counts = len(first), len(second)
    if min(counts) < 2:
        if max(counts) < 2:
            return first.new_full(first.shape[1:], counts[0] / max(sum(counts), 1))
        return first.new_full(first.shape[1:], float(counts[0] > counts[1]))
    own, other = (samples.var(dim=0) / len(samples) for samples in (first, second))
    total = own + other
    return torch.where(total > 0, other / total, 0.5)


def mean_or_zero(samples: torch.Tensor) -> torch.Tensor:
    """Returns the mean of samples of shape `(num_samples, dimension)`; zero if there is none."""
    return samples.sum(dim=0) / max(len(samples), 1)
