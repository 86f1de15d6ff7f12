"""Meta-gradients: right, the same in little memory, robust against bad tasks, and an estimator like evolution."""

import math

import pytest
import torch

from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import EXPLODED, MetaGradient, TaskGradient
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.tasks.distribution import Horizon
from tests.meta.meta_train_tiny import make_trainer, whole_and_resumed
from tests.meta.problems import make_network, make_tasks


def make_gradient(tmp_path, steps=6, **config):
    trainer = make_trainer(str(tmp_path), outer={"estimator": "gradient", **config})
    estimator = trainer.estimator
    estimator.tasks = make_tasks(horizon=Horizon(steps, steps))
    return estimator


def psi(estimator):
    network = make_network(trained=True)
    assert network.config == estimator.network.config
    return network.to_vector()


def test_the_meta_loss_is_that_of_a_rollout(tmp_path):
    """What is differentiated is the run that ships, dropout included."""
    estimator = make_gradient(tmp_path)
    task = estimator.tasks.draw(0, 0, 0)
    result = estimator.of_task(psi(estimator), task)
    plain = rollout(task.model, make_network(trained=True), task)
    assert result.meta_loss == pytest.approx(plain.loss, rel=1e-5)
    assert (result.accuracy, result.num_steps) == (plain.accuracy, plain.num_steps)


def test_a_step_against_the_gradient_lowers_the_meta_loss(tmp_path):
    estimator = make_gradient(tmp_path, feature_gradient=True)
    task, mean = estimator.tasks.draw(0, 0, 0), psi(estimator)
    result = estimator.of_task(mean, task)
    slope = float(result.gradient @ result.gradient)
    length = 1e-3 / math.sqrt(slope)
    ends = [estimator.of_task(mean + sign * length * result.gradient, task).meta_loss for sign in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * length) == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("segment_steps", [1, 2, 4, 100])
def test_recomputed_segments_give_the_same_gradient(tmp_path, segment_steps):
    whole = make_gradient(tmp_path / "whole", steps=7, feature_gradient=True)
    parts = make_gradient(tmp_path / "parts", steps=7, segment_steps=segment_steps, feature_gradient=True)
    task = whole.tasks.draw(0, 0, 0)
    one, two = whole.of_task(psi(whole), task), parts.of_task(psi(parts), task)
    torch.testing.assert_close(one.gradient, two.gradient, rtol=1e-4, atol=1e-6)
    assert one[1:] == pytest.approx(two[1:], rel=1e-6)
    state = torch.get_rng_state()
    parts.of_task(psi(parts), task)
    assert torch.equal(state, torch.get_rng_state())


def test_first_order_is_another_gradient_of_the_same_run(tmp_path):
    second, first = (make_gradient(tmp_path / str(kind), second_order=kind) for kind in (True, False))
    task = second.tasks.draw(0, 0, 0)
    one, two = (estimator.of_task(psi(estimator), task) for estimator in (second, first))
    assert one[1:] == two[1:] and not torch.equal(one.gradient, two.gradient)
    assert torch.nn.functional.cosine_similarity(one.gradient, two.gradient, dim=0) > 0.5


@pytest.mark.parametrize("bad", ["diverged", "nan", "exploded"])
def test_a_bad_task_is_counted_and_changes_no_other(tmp_path, bad, monkeypatch):
    """Invariant 7."""
    estimator = make_gradient(tmp_path, num_tasks=3)
    state = OuterState.start(psi(estimator))
    of_task, calls = type(estimator).of_task, []

    def sabotaged(self, mean, task):
        calls.append(task)
        result = of_task(self, mean, task)
        if len(calls) % 3 != 2:
            return result
        if bad == "diverged":
            return TaskGradient(torch.zeros_like(mean), math.inf, 0.0, 6)
        factor = math.nan if bad == "nan" else 2 * EXPLODED / float(result.gradient.norm())
        return result._replace(gradient=factor * result.gradient)

    whole = estimator.estimate(state)
    monkeypatch.setattr(type(estimator), "of_task", sabotaged)
    estimate = estimator.estimate(state)
    assert (whole.num_diverged, estimate.num_diverged, estimate.num_evaluations) == (0, 1, 3)
    others = [of_task(estimator, state.mean, estimator.tasks.draw(0, 0, index)).gradient for index in (0, 2)]
    clipped = [gradient * min(1.0, 1.0 / float(gradient.norm())) for gradient in others]
    torch.testing.assert_close(estimate.gradient, sum(clipped) / 2)
    assert math.isfinite(estimate.metrics["meta_loss"])


@pytest.mark.parametrize("num_bad", [2, 3])
def test_where_most_tasks_fail_the_weights_go_back(tmp_path, num_bad, monkeypatch):
    """The few that are left cannot speak for weights that have gone too far: none of 3 would come back by itself."""
    trainer = make_trainer(str(tmp_path), 3, {"estimator": "gradient", "averaging": 0.5, "num_tasks": 3})
    of_task, states = MetaGradient.of_task, []

    def sabotaged(self, mean, task):
        states.append(trainer.progress.state)
        failed = TaskGradient(torch.zeros_like(mean), math.inf, 0.0, 6)
        return failed if task.seed in bad else of_task(self, mean, task)

    bad = {trainer.tasks.draw(trainer.outer.seed, 2, index).seed for index in range(num_bad)}
    monkeypatch.setattr(MetaGradient, "of_task", sabotaged)
    trainer.train()
    before, after = states[-1], trainer.progress.state
    assert (before.generation, after.generation) == (2, 3)
    assert torch.equal(after.mean, before.average) and not torch.equal(before.mean, before.average)
    assert trainer.progress.cost["num_diverged"] == num_bad


def test_meta_training_learns_and_resumes(tmp_path):
    """Invariant 6: interrupted or not, the same bytes; and better than where it began."""
    whole, resumed = whole_and_resumed(tmp_path, 6, 4, outer={"estimator": "gradient", "num_tasks": 2})
    assert torch.equal(whole.network.to_vector(), resumed.network.to_vector())
    assert whole.progress.best_loss < whole.progress.untrained_loss
    summary = whole.summary()
    assert summary["cost_in_plain_steps"] == pytest.approx(whole.outer.step_cost * summary["inner_steps"])
    assert summary["num_tasks"] == 2 and summary["evaluations"] == 12
    assert summary["estimator"] == "gradient" and "sigma" not in summary


def test_a_large_gradient_drowns_no_other(tmp_path, monkeypatch):
    """As that of one large model among small ones: each is clipped to the same norm."""
    estimator = make_gradient(tmp_path, num_tasks=2)
    mean = psi(estimator)
    directions = torch.eye(len(mean))[:2]
    found = [TaskGradient(99 * directions[0], 1.0, 0.5, 6), TaskGradient(0.5 * directions[1], 1.0, 0.5, 6)]
    monkeypatch.setattr(MetaGradient, "sample", lambda self, state, index: found[index])
    estimate = estimator.estimate(OuterState.start(mean))
    torch.testing.assert_close(estimate.gradient, 0.5 * directions[0] + 0.25 * directions[1])
