"""Windows of long runs: right, carried over, robust against bad runs, and the same however they are interrupted."""

import math

import pytest
import torch

from hf_l3rs.errors import CheckpointError, ConfigError
from hf_l3rs.meta import windows as windows_module
from hf_l3rs.meta.evolution import noise
from hf_l3rs.meta.gradient import EXPLODED, GradientConfig
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.meta.windows import WORST, WindowConfig
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import run
from tests.meta.meta_train_tiny import make_trainer
from tests.meta.problems import make_network, make_tasks


def make_windows(tmp_path, steps=6, kind=WindowConfig, horizon=None, **config):
    options = {"window_steps": 2, "window_evaluation_size": 0} if kind is WindowConfig else {}
    estimator = make_trainer(str(tmp_path), gradient=kind(**{"num_tasks": 2, **options, **config})).estimator
    estimator.tasks = make_tasks(horizon=horizon or Horizon(steps, steps))
    return estimator


def begin_later(estimator):
    """The runs are those of a later generation, which are not cut short."""
    for slot in range(estimator.config.num_tasks):
        estimator._episodes[slot] = estimator._begin(1, slot)


def state_at(generation=0):
    return OuterState(make_network(trained=True).to_vector(), generation)


@pytest.mark.parametrize("options", [{}, {"segment_steps": 2}, {"second_order": False}])
def test_one_window_over_the_whole_run_gives_the_whole_gradient(tmp_path, options):
    options = {**options, "num_evaluations": 2, "feature_gradient": True}
    whole = make_windows(tmp_path / "whole", kind=GradientConfig, **options).estimate(state_at())
    window = make_windows(tmp_path / "window", window_steps=10, combination="gradient", **options).estimate(state_at())
    assert torch.equal(whole.gradient, window.gradient) and bool(whole.gradient.any())
    assert window.metrics == {**whole.metrics, "gradient_weight": 1.0}
    assert window[1:5] == whole[1:5]


@pytest.mark.parametrize("combination", windows_module.COMBINATIONS)
def test_runs_go_on_as_if_they_were_not_cut(tmp_path, combination):
    estimator = make_windows(tmp_path, steps=7, combination=combination, window_steps=3)
    begin_later(estimator)
    state, losses = state_at(1), []
    for _ in range(2):
        losses.append(estimator.estimate(state).metrics["meta_loss"])
    step = estimator.es.sigma_at(1) * noise(estimator.es, 1, 0, len(state.mean))
    for sign, snapshot in zip(estimator.signs, estimator._episodes[0].snapshots):
        task = estimator.tasks.draw(0, 1, 0)
        learner = estimator.learner(task, state.mean + sign * step, keep_graph=False)
        run(learner, task._replace(num_training_steps=6))
        assert snapshot.k == 6 and torch.equal(snapshot.random_state, learner.snapshot().random_state)
        assert all(torch.equal(one, two) for one, two in zip(snapshot.params, learner.params))
    estimator.estimate(state)
    assert [(episode.generation, episode.num_steps) for episode in estimator._episodes.values()] == [(2, 0)] * 2
    assert losses[1] < losses[0]


def test_evolution_of_the_windows_is_that_of_the_whole_run(tmp_path):
    """So it is unbiased: at one ψ, the estimates of a run's windows add up to that of the uncut run."""
    estimator = make_windows(tmp_path, combination="evolution", num_tasks=1)
    begin_later(estimator)
    state = state_at(1)
    total = sum(estimator.estimate(state).gradient for _ in range(3))
    task, sigma, eps = estimator.tasks.draw(0, 1, 0), estimator.es.sigma, noise(estimator.es, 1, 0, len(state.mean))
    losses = []
    for sign in (1, -1):
        learner = estimator.learner(task, state.mean + sign * sigma * eps, keep_graph=False)
        trajectory = run(learner, task, evaluate_at=[2, 4])
        losses.append(sum(evaluation.loss for evaluation in trajectory.evaluations.values()))
    torch.testing.assert_close(total, (losses[0] - losses[1]) / (2 * sigma) * eps)


def test_the_first_runs_do_not_march_in_step(tmp_path):
    estimator = make_windows(tmp_path, steps=20, num_tasks=8, combination="gradient")
    ends = [estimator._begin(0, slot).end for slot in range(8)]
    assert len(set(ends)) > 3 and all(2 <= end <= 20 and end % 2 == 0 for end in ends)
    assert {estimator._begin(1, slot).end for slot in range(8)} == {20}
    assert make_windows(tmp_path / "short", steps=1)._begin(0, 0).end == 1


def test_slots_have_tasks_of_their_own_length(tmp_path):
    estimator = make_windows(tmp_path, horizon=Horizon(1, 9), num_tasks=4)
    estimates = [estimator.estimate(state_at(generation)) for generation in range(4)]
    assert len({estimate.num_inner_steps for estimate in estimates}) > 1
    assert all(estimate.num_diverged == 0 for estimate in estimates)


def test_a_step_costs_what_its_kind_costs(tmp_path):
    per_step = WindowConfig().step_cost
    for combination, cost in (("gradient", per_step), ("evolution", 2), ("variance", per_step + 2)):
        estimator = make_windows(tmp_path / combination, combination=combination)
        estimate = estimator.estimate(state_at())
        assert estimate.cost_in_plain_steps == pytest.approx(4 * cost)
        assert estimate.num_inner_steps == 4 * len(estimator.signs)
        assert estimate.num_evaluations == 2 * len(estimator.signs)


def sabotage(estimator, monkeypatch, changes):
    """`changes` gives, by the sign of a candidate of slot 1, what is done to the result of its window."""
    real = type(estimator)._run

    def changed(self, candidate, episode, window, begin, is_differentiated):
        result = real(self, candidate, episode, window, begin, is_differentiated)
        if episode.task.seed != self.tasks.draw(0, episode.generation, 1).seed:
            return result
        signs.append(self.signs[len(signs) % len(self.signs)])
        return changes.get(signs[-1], lambda result: result)(result)

    signs = []
    monkeypatch.setattr(type(estimator), "_run", changed)


def diverged(result):
    _, trajectory, end = result
    return None, trajectory._replace(diverged=True), end


def exploded(result):
    return 2 * EXPLODED * result[0] / result[0].norm(), *result[1:]


def of_nan(result):
    return math.nan * result[0], *result[1:]


@pytest.mark.parametrize("bad", [exploded, of_nan, diverged])
def test_a_bad_gradient_is_counted_and_evolution_goes_on(tmp_path, monkeypatch, bad):
    """Invariant 7. The gradient's side has one sample left, so that evolution's two count alone."""
    plain, evolution = (make_windows(tmp_path / name, combination=name) for name in ("variance", "evolution"))
    for estimator in (plain, evolution):
        begin_later(estimator)
    expected = evolution.estimate(state_at(1))
    sabotage(plain, monkeypatch, {0: bad})
    estimate = plain.estimate(state_at(1))
    assert torch.equal(estimate.gradient, expected.gradient) and bool(estimate.gradient.any())
    assert (estimate.num_diverged, estimate.num_evaluations, estimate.metrics["gradient_weight"]) == (1, 6, 0.0)
    assert math.isfinite(estimate.metrics["meta_loss"])
    expected_steps = [2, 0] if bad is diverged else [2, 2]
    assert [episode.num_steps for episode in plain._episodes.values()] == expected_steps
    if bad is diverged:
        assert plain._episodes[1].generation == 2


def test_with_three_slots_the_others_are_weighted(tmp_path, monkeypatch):
    estimator = make_windows(tmp_path, num_tasks=3)
    begin_later(estimator)
    sabotage(estimator, monkeypatch, {0: exploded})
    estimate = estimator.estimate(state_at(1))
    assert 0 < estimate.metrics["gradient_weight"] < 1 and estimate.num_diverged == 1
    assert bool(torch.isfinite(estimate.gradient).all())


def test_a_perturbed_run_that_diverges_counts_as_the_worst_and_ends_the_episode(tmp_path, monkeypatch):
    estimator = make_windows(tmp_path, combination="evolution")
    begin_later(estimator)
    sabotage(estimator, monkeypatch, {1: diverged})
    estimate = estimator.estimate(state_at(1))
    assert estimate.num_diverged == 1 and bool(torch.isfinite(estimate.gradient).all())
    assert [episode.num_steps for episode in estimator._episodes.values()] == [2, 0]


def test_how_the_losses_of_a_pair_are_compared():
    difference, worst = windows_module._difference, WORST * math.log(3)
    assert difference([0.5, 0.25], 3) == 0.25
    assert difference([math.inf, 0.25], 3) == worst - 0.25 == difference([100.0, 0.25], 3)
    assert difference([0.25, math.inf], 3) == 0.25 - worst
    assert math.isnan(difference([math.inf, math.inf], 3)) and difference([100.0, 200.0], 3) == 0.0


def test_if_everything_diverges_nothing_is_learned(tmp_path, monkeypatch):
    estimator = make_windows(tmp_path)
    monkeypatch.setattr(estimator, "_run", lambda *args, real=estimator._run, **how: diverged(real(*args, **how)))
    estimate = estimator.estimate(state_at())
    assert estimate.num_diverged == estimate.num_evaluations == 6 and not bool(estimate.gradient.any())
    assert math.isnan(estimate.metrics["meta_loss"])


@pytest.mark.parametrize("combination", windows_module.COMBINATIONS)
def test_meta_training_learns_and_resumes(tmp_path, combination):
    """Invariant 6: interrupted or not, the same bytes, those of the runs on their way included."""
    config = WindowConfig(num_tasks=2, window_steps=1, combination=combination)
    whole = make_trainer(str(tmp_path / "whole"), 8, gradient=config)
    whole.train()
    half = make_trainer(str(tmp_path / "half"), 8, gradient=config)
    half._all_agree_to_stop = lambda: half.progress.state.generation == 5
    half.train()
    resumed = make_trainer(str(tmp_path / "half"), 8, gradient=config, resume_from_checkpoint="last")
    resumed.train()
    assert torch.equal(whole.network.to_vector(), resumed.network.to_vector())
    one, two = whole.estimator.state(), resumed.estimator.state()
    assert one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert any(int(tensor) for name, tensor in one.items() if name.endswith(".k")), "some run must be on its way"
    assert whole.progress.carried == {} and whole.summary()["combination"] == combination
    assert whole.progress.best_loss <= whole.progress.references["untrained"]


def test_a_checkpoint_without_its_runs_is_refused(tmp_path):
    estimator = make_windows(tmp_path)
    estimator.estimate(state_at())
    state = estimator.state()
    with pytest.raises(CheckpointError, match="not those of this model"):
        estimator.load_state({name: tensor for name, tensor in state.items() if name != "1.0.k"})
    estimator.load_state(state)


@pytest.mark.parametrize(
    "changes",
    [{"window_steps": 0}, {"window_evaluation_size": -1}, {"combination": "mean"}, {"num_tasks": 0}],
    ids=str,
)
def test_bad_settings_are_refused(changes):
    with pytest.raises(ConfigError, match=f"WindowConfig.{next(iter(changes))} must be .*, got"):
        WindowConfig(**changes)


def test_a_variance_needs_two_slots(tmp_path):
    with pytest.raises(
        ConfigError, match="variance needs at least 2 tasks.*num_tasks=1; raise it, or set combination"
    ):
        make_trainer(str(tmp_path), gradient=WindowConfig(num_tasks=1))
    make_trainer(str(tmp_path), gradient=WindowConfig(num_tasks=1, combination="evolution"))


def test_settings_of_whole_runs_are_told_apart():
    config = WindowConfig(num_tasks=7, second_order=False)
    assert config.of_whole_runs() == GradientConfig(num_tasks=7, second_order=False)
    assert type(config.of_whole_runs()) is GradientConfig
