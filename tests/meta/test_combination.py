"""Two estimates as one: unbiased, with the less variance the better it is known."""

import pytest
import torch

from hf_l3rs.meta.combination import antithetic, mean_or_zero, variance_weights


def samples(mean, deviation, count=20_000, seed=0):
    noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + deviation * noise


def test_evolution_is_unbiased():
    """On a quadratic, whose smoothed gradient is its own."""
    psi, sigma = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), 0.3
    noise = samples(torch.zeros(3, dtype=torch.float64), 1.0)

    def loss(points):
        return (points * torch.tensor([1.0, 2.0, 3.0])).square().sum(dim=1) / 2 + points[:, 0]

    differences = loss(psi + sigma * noise) - loss(psi - sigma * noise)
    estimate = antithetic(differences, noise, torch.full((len(noise),), sigma)).mean(dim=0)
    torch.testing.assert_close(estimate, torch.tensor([2.0, -8.0, 4.5], dtype=torch.float64), atol=0.25, rtol=0)


def test_the_combination_has_the_least_variance():
    mean = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    first = samples(mean, torch.tensor([1.0, 3.0, 0.0]))
    second = samples(mean, torch.tensor([2.0, 1.0, 1.0]), seed=1)
    weights = variance_weights(first, second)
    torch.testing.assert_close(weights, torch.tensor([0.8, 0.1, 1.0], dtype=torch.float64), atol=0.01, rtol=0)
    half = variance_weights(first, second[:5000])  # the mean of fewer samples is less certain
    torch.testing.assert_close(half[:2], torch.tensor([16 / 17, 4 / 13], dtype=torch.float64), atol=0.02, rtol=0)


def test_nothing_is_known_of_a_parameter_that_nothing_moves():
    weights = variance_weights(torch.zeros(3, 2), torch.zeros(2, 2))
    assert weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [(3, 1, 1.0), (1, 3, 0.0), (2, 0, 1.0), (0, 2, 0.0), (1, 0, 1.0), (0, 1, 0.0), (1, 1, 0.5), (0, 0, 0.0)],
)
def test_a_side_without_a_variance_leaves_it_to_the_other(first, second, weight):
    weights = variance_weights(torch.ones(first, 2), torch.ones(second, 2))
    assert weights.tolist() == [weight, weight]


def test_the_mean_of_nothing_is_zero():
    assert mean_or_zero(torch.empty(0, 2)).tolist() == [0.0, 0.0]
    assert mean_or_zero(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).tolist() == [2.0, 4.0]
