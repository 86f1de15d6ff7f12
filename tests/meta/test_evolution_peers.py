"""Development only: one generation beside evotorch's PGPE. `pip install evotorch` to run it."""

import pytest
import torch

from hf_l3rs.meta.evolution import ESConfig, ask, gradient
from hf_l3rs.meta.outer import OuterState


def test_the_gradient_is_that_of_evotorchs_pgpe():
    functional = pytest.importorskip("evotorch.algorithms.functional", reason="evotorch is not installed")
    sigma, learning_rate = 0.1, 0.5
    config = ESConfig(num_pairs=6, sigma=sigma, utility="pair_difference")
    state = OuterState(torch.linspace(-1, 1, 9))
    pairs = [ask(config, state, pair) for pair in range(config.num_pairs)]
    losses = torch.tensor([[float((vector - 0.3).square().sum()) for vector in pair] for pair in pairs])

    peer = functional.pgpe(
        center_init=state.mean,
        center_learning_rate=learning_rate,
        stdev_learning_rate=0.0,
        stdev_init=sigma,
        objective_sense="min",
        ranking_method="raw",
        optimizer="sgd",
        optimizer_config={"momentum": 0.0},
    )
    # its candidates, too, are +, -, +, -; its gradient is in units of the step σε rather than of ψ, hence σ²
    values = torch.stack([vector for pair in pairs for vector in pair])
    moved = functional.pgpe_tell(peer, values, losses.flatten())
    step = moved.optimizer_state.center - state.mean
    torch.testing.assert_close(step, -learning_rate * sigma**2 * gradient(config, state, losses))
