import math

import pytest
import torch

from hf_l3rs import L3RS
from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.meta.evolution import ask, gradient, noise, rollout, signed_ranks
from hf_l3rs.meta.outer import OuterConfig, OuterState
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import evaluate
from tests.meta.problems import make_model, make_network, make_tasks


def losses_of(function, config, state):
    pairs = [ask(config, state, pair) for pair in range(config.num_pairs)]
    return torch.tensor([[float(function(vector)) for vector in pair] for pair in pairs], dtype=torch.float64)


def tell(config, state, losses):
    return state.move(config, gradient(config, state, losses))


def test_pairs_are_antithetic_around_the_mean_and_a_function_of_seed_generation_and_pair():
    """Invariant 6."""
    config, state = OuterConfig(seed=3, sigma=0.5), OuterState.start(torch.arange(4.0), 2)
    plus, minus = ask(config, state, pair=7)
    torch.testing.assert_close(plus + minus, 2 * state.mean)
    assert torch.equal(plus, state.mean + 0.5 * noise(config, 2, 7, 4))
    assert torch.equal(noise(config, 2, 7, 4), noise(config, 2, 7, 4))
    others = [noise(OuterConfig(seed=4), 2, 7, 4), noise(config, 3, 7, 4), noise(config, 2, 8, 4)]
    assert not any(torch.equal(noise(config, 2, 7, 4), other) for other in others)


def test_the_gradient_points_where_the_analytic_one_does():
    config = OuterConfig(num_pairs=4000, sigma=0.01)
    scale = torch.tensor([1.0, 2.0, -3.0, 0.5])
    state = OuterState.start(torch.tensor([0.3, -0.2, 0.1, 1.0]))
    estimate = gradient(config, state, losses_of(lambda vector: (scale * vector.square()).sum(), config, state))
    assert torch.nn.functional.cosine_similarity(estimate, 2 * scale * state.mean, dim=0) > 0.99


def test_ranks_share_ties():
    losses = torch.tensor([[1.0, 1.0], [5.0, 1.0], [1.0, 2.0], [2.0, 1.0]])
    assert signed_ranks(losses).tolist() == pytest.approx([0.0, 1.0, -5 / 8, 5 / 8])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_candidate_is_the_worst_and_changes_no_other(bad):
    """Invariant 7."""
    weights = signed_ranks(torch.tensor([[bad, 1.0], [2.0, 5.0], [bad, bad]], dtype=torch.float64))
    assert torch.isfinite(weights).all()
    assert weights[0] > 0, "the diverged member of a pair must lose against the other"
    assert weights[1] < 0
    assert weights[2] == 0
    much_worse = signed_ranks(torch.tensor([[9.0, 1.0], [2.0, 5.0], [9.0, 9.0]], dtype=torch.float64))
    assert weights.tolist() == much_worse.tolist()


def test_a_move_is_pure_and_can_be_resumed_from_its_state():
    config = OuterConfig(num_pairs=3, learning_rate=0.1)
    losses = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.5, 0.1]], dtype=torch.float64)
    start = OuterState.start(torch.ones(5))
    one = tell(config, start, losses)
    frozen = [tensor.clone() for tensor in one[:-1]]
    two, again = tell(config, one, losses), tell(config, one, losses)
    assert torch.equal(start.mean, torch.ones(5)) and not start.exp_avg.any()
    assert torch.equal(two.mean, again.mean) and not torch.equal(two.mean, one.mean)
    assert all(torch.equal(*pair) for pair in zip(one[:-1], frozen))


def test_moves_are_those_of_one_adam():
    config, state = OuterConfig(learning_rate=0.1, final_learning_rate=1.0), OuterState.start(torch.ones(5))
    vector = torch.nn.Parameter(torch.ones(5))
    adam = torch.optim.Adam([vector], lr=0.1)
    for seed in range(4):
        vector.grad = torch.randn(5, generator=torch.Generator().manual_seed(seed))
        adam.step()
        state = state.move(config, vector.grad)
    assert torch.equal(state.mean, vector.detach()) and state.generation == 4


@pytest.mark.parametrize("gradient", [torch.tensor([torch.nan, 0.0]), torch.tensor([torch.inf, 0.0])])
def test_weights_that_would_not_be_finite_are_refused(gradient):
    with pytest.raises(NothingToKeepError, match="generation 5"):
        OuterState.start(torch.ones(2), 4).move(OuterConfig(), gradient)


def test_the_average_follows_the_mean():
    losses = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    config = OuterConfig(num_pairs=2, learning_rate=0.1, averaging=0.75)
    start = OuterState.start(torch.zeros(5))
    one = tell(config, start, losses)
    two = tell(config, one, losses)
    assert torch.equal(start.average, start.mean)
    torch.testing.assert_close(one.average, 0.25 * one.mean)
    torch.testing.assert_close(two.average, 0.75 * one.average + 0.25 * two.mean)
    plain = tell(OuterConfig(num_pairs=2, learning_rate=0.1), start, losses)
    assert torch.equal(plain.average, plain.mean) and torch.equal(plain.mean, one.mean)


def test_schedules():
    config = OuterConfig(num_generations=100, learning_rate=0.1, final_learning_rate=0.1, warmup_generations=4)
    assert config.learning_rate_at(0) == pytest.approx(0.02)
    assert config.learning_rate_at(100) == pytest.approx(0.01)


def test_a_rollout_is_what_the_shipped_optimizer_does_in_a_plain_loop():
    model, network = make_model(), make_network(trained=True)
    task = make_tasks().draw(0, 0, 0)
    result = rollout(model, network, task)
    plain = make_model(1)
    plain.load_state_dict(dict(task.initial_state))
    optimizer = L3RS(plain, network=network, num_training_steps=4)
    for batch in task.batches:
        loss = plain(batch.pixel_values, batch.labels).loss
        loss.backward()
        optimizer.step(loss)
        optimizer.zero_grad()
    assert result.loss == evaluate(plain, task.evaluation).loss and result.num_steps == 4
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), plain.parameters()))
    assert result.loss != rollout(model, make_network(trained=True, max_grad_norm=0.01), task).loss


def test_rollouts_repeat_whatever_ran_before():
    """Invariants 6 and 7: the model's and the global random state leave no trace."""
    model, network = make_model(dropout=0.3), make_network()
    task, other = make_tasks().draw(0, 0, 0), make_tasks().draw(0, 0, 1)
    first = rollout(model, network, task)
    broken = make_network()
    broken.biases[-1].data[-1] = 12.0  # steps e^12 times too large
    assert rollout(model, broken, other).loss > first.loss
    torch.manual_seed(123)
    assert rollout(model, network, task) == first


def test_divergence_is_cut_short_and_infinite():
    """Invariant 7."""
    network = make_network()
    network.biases[-1].data[-1] = 12.0
    result = rollout(make_model(), network, make_tasks(horizon=Horizon(40, 40)).draw(0, 0, 0))
    assert (result.loss, result.accuracy) == (math.inf, 0.0) and result.num_steps < 40
