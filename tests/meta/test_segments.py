"""Segments of long runs: every step once, a right gradient, and back from a checkpoint to the last bit."""

import math

import pytest
import torch

from hf_l3rs.errors import CheckpointError
from hf_l3rs.meta.gradient import differentiate
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import run
from tests.meta.meta_train_tiny import make_trainer, whole_and_resumed
from tests.meta.problems import make_mixture, make_model, make_network, make_tasks


def make_segments(tmp_path, steps=6, horizon=None, dropout=0.1, mixture=False, **config):
    config = {"estimator": "segments", "num_tasks": 2, "segment_steps": 2, **config}
    trainer = make_trainer(str(tmp_path), outer=config, mixture=mixture)
    estimator, horizon = trainer.estimator, horizon or Horizon(steps, steps)
    tasks = make_mixture(horizon=horizon) if mixture else make_tasks(make_model(dropout=dropout), horizon=horizon)
    return type(estimator)(trainer.outer, tasks, trainer.network, trainer.accelerator)


def state_at(generation=1):
    """Past the first generation, whose runs are cut short."""
    return OuterState.start(make_network(trained=True).to_vector(), generation)


def steps_of(estimator):
    return {slot: (each.generation, each.num_steps) for slot, each in estimator._runs.items()}


def test_segments_cover_a_run_as_if_it_were_not_cut(tmp_path):
    """Dropout and looking ahead included; where it ends, another run begins."""
    estimator, state = make_segments(tmp_path, steps=5, lookahead_steps=1), state_at()
    task = estimator.tasks.draw(0, 1, 0)
    for num_steps in (2, 4):
        assert estimator.estimate(state).num_inner_steps == 2 * (3 if num_steps == 2 else 3)
        learner = estimator.learner(task, state.mean)
        run(learner, task._replace(batches=list(task.batches)[:num_steps], num_training_steps=num_steps))
        own, other = estimator._runs[0].snapshot, learner.snapshot()
        # the horizon, which the network sees, is that of the whole run in both
        assert own.k == num_steps and torch.equal(own.random_state, other.random_state)
        assert all(torch.equal(*pair) for pair in zip(own.params, other.params))
        assert not any(param.requires_grad for param in own.params)
        state = state._replace(generation=state.generation + 1)
    estimate = estimator.estimate(state)
    assert estimate.num_inner_steps == 2 * 1 and steps_of(estimator) == {0: (4, 0), 1: (4, 0)}


@pytest.mark.parametrize("lookahead_steps", [0, 2])
def test_the_gradient_of_a_segment_is_that_of_finite_differences(tmp_path, lookahead_steps):
    options = {"feature_gradient": True, "lookahead_steps": lookahead_steps, "dropout": 0.0}
    estimator, state = make_segments(tmp_path, **options), state_at()
    begun = estimator._begin(1, 0)
    _, begun = estimator._segment(state.mean, begun)
    result, end = estimator._segment(state.mean, begun)
    assert (begun.num_steps, end.num_steps, result.num_steps) == (2, 4, 2 + lookahead_steps)
    slope = float(result.gradient @ result.gradient)
    length = 1e-3 / math.sqrt(slope)
    moved = [state.mean + sign * length * result.gradient for sign in (1, -1)]
    losses = [estimator._segment(mean, begun)[0].meta_loss for mean in moved]
    assert (losses[0] - losses[1]) / (2 * length) == pytest.approx(slope, rel=0.02)


def test_whole_short_runs_are_mixed_in(tmp_path):
    estimator, state = make_segments(tmp_path, horizon=Horizon(3, 40), num_whole_runs=1, segment_steps=4), state_at()
    for index in range(4):
        task = estimator._short.draw(0, 1, index)
        assert 3 <= task.num_training_steps <= 4
    whole = estimator.sample(state, 0)
    task = estimator._short.draw(0, 1, 0)
    expected = differentiate(estimator.learner(task, state.mean), task)
    assert torch.equal(whole.gradient, expected.gradient) and whole[1:] == pytest.approx(expected[1:])
    estimator.estimate(state)
    assert list(estimator._runs) == [1]


def test_a_run_that_diverges_is_counted_and_ends(tmp_path, monkeypatch):
    """Invariant 7."""
    estimator, state = make_segments(tmp_path, num_tasks=3), state_at()
    expected = [estimator.sample(state, slot) for slot in (0, 2)]
    estimator._runs.clear()
    bad, real = estimator.tasks.draw(0, 1, 1).seed, type(estimator)._segment

    def sabotaged(self, mean, each):
        result, end = real(self, mean, each)
        return (result._replace(meta_loss=math.inf) if each.task.seed == bad else result), end

    monkeypatch.setattr(type(estimator), "_segment", sabotaged)
    estimate = estimator.estimate(state)
    assert (estimate.num_diverged, estimate.num_evaluations) == (1, 3)
    clipped = [each.gradient * min(1.0, 1.0 / float(each.gradient.norm())) for each in expected]
    torch.testing.assert_close(estimate.gradient, sum(clipped) / 2)
    assert steps_of(estimator) == {0: (1, 2), 1: (2, 0), 2: (1, 2)}


def test_exploding_weights_are_seen_and_there_is_no_estimate(tmp_path):
    network = make_network()
    network.biases[-1].data[-1] = 12.0
    estimate = make_segments(tmp_path).estimate(OuterState.start(network.to_vector(), 1))
    assert estimate.gradient is None and estimate.num_diverged == 2


@pytest.mark.parametrize("mixture", [False, True])
def test_meta_training_learns_and_resumes(tmp_path, mixture):
    """Invariant 6: interrupted or not, the same bytes, those of the runs on their way included."""
    outer = {"estimator": "segments", "num_tasks": 3, "num_whole_runs": 1, "segment_steps": 1}
    whole, resumed = whole_and_resumed(tmp_path, 8, 5, outer=outer, mixture=mixture)
    assert torch.equal(whole.network.to_vector(), resumed.network.to_vector())
    one, two = whole.estimator.state(), resumed.estimator.state()
    assert one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert len(one) > 4, "some run must be on its way"
    assert whole.summary()["estimator"] == "segments" and "sigma" not in whole.summary()
    assert whole.progress.best_loss <= whole.progress.untrained_loss


def test_runs_of_other_models_are_refused(tmp_path):
    estimator = make_segments(tmp_path)
    estimator.estimate(state_at())
    state = estimator.state()
    for changed in ({**state, "1.0": torch.zeros(7)}, {name: state[name] for name in state if name != "1.3"}):
        with pytest.raises(CheckpointError, match="not those of these models"):
            estimator.load_state(changed)
    before = steps_of(estimator)
    estimator._runs.clear()
    estimator.load_state(state)
    assert steps_of(estimator) == before
