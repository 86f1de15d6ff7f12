import math

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.evolution import UTILITIES, ESConfig, ask, centered_rank, gradient, noise, signed_rank
from hf_l3rs.meta.outer import OPTIMIZERS, OuterState, move


def losses_of(function, config, state):
    pairs = [ask(config, state, pair) for pair in range(config.num_pairs)]
    return torch.tensor([[float(function(vector)) for vector in pair] for pair in pairs], dtype=torch.float64)


def tell(config, state, losses):
    return move(config, state, gradient(config, state, losses))


def test_pairs_are_antithetic_around_the_mean_and_a_function_of_seed_generation_and_pair():
    """Invariant 6."""
    config, state = ESConfig(seed=3, sigma=0.5), OuterState(torch.arange(4.0), generation=2)
    plus, minus = ask(config, state, pair=7)
    torch.testing.assert_close(plus + minus, 2 * state.mean)
    assert torch.equal(plus, state.mean + 0.5 * noise(config, 2, 7, 4))
    assert torch.equal(noise(config, 2, 7, 4), noise(config, 2, 7, 4))
    others = [noise(ESConfig(seed=4), 2, 7, 4), noise(config, 3, 7, 4), noise(config, 2, 8, 4)]
    assert not any(torch.equal(noise(config, 2, 7, 4), other) for other in others)


@pytest.mark.parametrize("utility", UTILITIES)
def test_progress_on_a_noisy_quadratic(utility):
    config = ESConfig(num_generations=150, num_pairs=16, sigma=0.1, learning_rate=0.05, utility=utility)
    target = torch.linspace(-1, 1, 30)
    rng = torch.Generator().manual_seed(0)

    def loss(vector):
        return (vector - target).square().sum() + 0.3 * torch.randn((), generator=rng)

    state = OuterState(torch.zeros(30))
    initial = float(target.square().sum())
    for _ in range(config.num_generations):
        state = tell(config, state, losses_of(loss, config, state))
    assert state.generation == 150
    assert float((state.mean - target).square().sum()) < 0.1 * initial


def test_the_gradient_agrees_with_the_analytic_one():
    config = ESConfig(num_pairs=4000, sigma=0.01, utility="pair_difference")
    scale = torch.tensor([1.0, 2.0, -3.0, 0.5])
    state = OuterState(torch.tensor([0.3, -0.2, 0.1, 1.0]))
    losses = losses_of(lambda vector: (scale * vector.square()).sum(), config, state)
    torch.testing.assert_close(gradient(config, state, losses), 2 * scale * state.mean, atol=0.1, rtol=0.05)


def test_ranks_share_ties_and_are_centred():
    losses = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    # ranks 0, 1.5, 1.5, 3 of 3
    assert centered_rank(losses).tolist() == pytest.approx([-0.25, -0.25])
    assert signed_rank(torch.tensor([[1.0, 1.0], [5.0, 1.0], [1.0, 2.0]])).tolist() == pytest.approx(
        [0.0, 1.0, -2 / 3]
    )


@pytest.mark.parametrize("utility", UTILITIES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_candidate_is_the_worst_and_changes_no_other(utility, bad):
    """Invariant 7."""
    weights = UTILITIES[utility](torch.tensor([[bad, 1.0], [2.0, 5.0], [bad, bad]], dtype=torch.float64))
    assert torch.isfinite(weights).all()
    assert weights[0] > 0, "the diverged member of a pair must lose against the other"
    assert weights[1] < 0
    assert weights[2] == 0
    much_worse = UTILITIES[utility](torch.tensor([[9.0, 1.0], [2.0, 5.0], [9.0, 9.0]], dtype=torch.float64))
    if utility != "pair_difference":
        assert weights.tolist() == much_worse.tolist()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_tell_is_pure_and_can_be_resumed_from_its_state(optimizer):
    config = ESConfig(num_pairs=3, optimizer=optimizer, learning_rate=0.1, weight_decay=0.01)
    losses = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.5, 0.1]], dtype=torch.float64)
    start = OuterState(torch.ones(5))
    one = tell(config, start, losses)
    frozen = {name: tensor.clone() for name, tensor in one.optimizer.items()}
    two, again = tell(config, one, losses), tell(config, one, losses)
    assert torch.equal(start.mean, torch.ones(5)) and not start.optimizer
    assert torch.equal(two.mean, again.mean) and not torch.equal(two.mean, one.mean)
    assert all(torch.equal(one.optimizer[name], tensor) for name, tensor in frozen.items())


def test_the_average_follows_the_mean():
    losses = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    config = ESConfig(num_pairs=2, learning_rate=0.1, averaging=0.75)
    start = OuterState(torch.zeros(5))
    one = tell(config, start, losses)
    two = tell(config, one, losses)
    assert torch.equal(start.average, start.mean)
    torch.testing.assert_close(one.average, 0.25 * one.mean)
    torch.testing.assert_close(two.average, 0.75 * one.average + 0.25 * two.mean)
    plain = tell(ESConfig(num_pairs=2, learning_rate=0.1), start, losses)
    assert torch.equal(plain.average, plain.mean) and torch.equal(plain.mean, one.mean)


def test_schedules():
    config = ESConfig(num_generations=100, learning_rate=0.1, final_learning_rate=0.1, warmup_generations=4)
    assert config.learning_rate_at(0) == pytest.approx(0.02)
    assert config.learning_rate_at(100) == pytest.approx(0.01)
    falling = ESConfig(num_generations=100, sigma=0.1, final_sigma=0.001)
    assert falling.sigma_at(50) == pytest.approx(0.01)
    assert ESConfig(sigma=0.2).sigma_at(77) == 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"averaging": 1.0},
        {"optimizer": "lion"},
        {"utility": "best"},
        {"num_pairs": 0},
        {"sigma": 0.0},
        {"learning_rate": -1.0},
        {"num_generations": 1.5},
        {"num_generations": "many"},
        {"num_generations": True},
        {"num_pairs": 2.5},
        {"num_pairs": None},
        {"final_sigma": 0.0},
        {"final_sigma": -0.1},
        {"final_sigma": math.nan},
        {"sigma": math.inf},
        {"sigma": "small"},
        {"warmup_generations": -1},
        {"final_learning_rate": -0.1},
        {"final_learning_rate": 1.5},
        {"weight_decay": -0.1},
        {"learning_rate": math.nan},
        {"seed": 2**70},
        {"seed": -1},
        {"seed": 0.5},
        {"optimizer": ["adam"]},
    ],
)
def test_bad_settings_are_refused_in_one_sentence(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))) as error:
        ESConfig(**changes)
    assert "\n" not in str(error.value)
