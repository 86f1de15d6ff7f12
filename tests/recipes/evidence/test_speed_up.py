"""The speed-up: interpolated between measured lengths of run, bounded beyond them, with the interval of its tasks."""

import math

import pytest

from hf_l3rs.evaluation.store import final_rows
from recipes.evidence.speed_up import SpeedUp, speed_ups, steps_for_loss
from tests.evaluation.rows import row


CURVE = {10: 1.0, 20: 0.5, 40: 0.25}


def test_steps_are_interpolated_in_logarithms():
    assert steps_for_loss(CURVE, 0.5) == 20 and steps_for_loss(CURVE, 1.0) == 10
    assert steps_for_loss(CURVE, 0.5**0.5) == pytest.approx(10 * 2**0.5)
    assert steps_for_loss(CURVE, 1.1) == 0 and steps_for_loss(CURVE, 0.2) == math.inf


def test_a_curve_that_turns_up_or_diverges_or_reaches_zero():
    assert steps_for_loss({**CURVE, 20: 2.0}, 0.5) == pytest.approx(20 * 2 ** (2 / 3)), "first it must be so low"
    assert steps_for_loss({**CURVE, 20: math.inf}, 0.5) == pytest.approx(20)
    assert steps_for_loss({10: 1.0, 20: 0.0}, 0.5) == 20 and steps_for_loss({}, 1.0) == math.inf


def rows(baseline, own, noise=0.0, tasks=12):
    """Losses by steps, with an effect of the task that is the same for all, and one that is L3RS's own."""
    return [
        row(name, task, loss * (1 + 0.03 * task) * (1 + (noise * (task % 2 - 0.5) if name == "L3RS" else 0)), steps)
        for name, losses in (("Adam", baseline), ("L3RS", own))
        for steps, loss in losses.items()
        for task in range(tasks)
    ]


def speed_up(*args, **options):
    (found,) = speed_ups(final_rows(rows(*args, **options)), "L3RS", ["Adam", "not measured"]).values()
    return found


def test_what_all_tasks_say_has_no_width():
    assert speed_up(CURVE, {10: 0.5}) == SpeedUp(*[pytest.approx(2.0)] * 3)


def test_the_interval_is_of_the_tasks_and_the_same_again():
    found = speed_up(CURVE, {10: 0.5}, noise=0.4)
    assert found.low < found.ratio < found.high and found.bound is None
    assert found == speed_up(CURVE, {10: 0.5}, noise=0.4)
    wider = speed_up(CURVE, {10: 0.5}, noise=0.8)
    assert wider.low < found.low and wider.high > found.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Of many experiments whose tasks are drawn from one population, in which the speed-up is 2."""
    import numpy as np

    rng, inside = np.random.default_rng(1), 0
    for _ in range(60):
        noise = np.exp(rng.normal(0, 0.2, 24) - 0.02)
        finals = final_rows(
            [row("Adam", task, loss, steps) for steps, loss in CURVE.items() for task in range(24)]
            + [row("L3RS", task, 0.5 * factor, 10) for task, factor in enumerate(noise)]
        )
        found = speed_ups(finals, "L3RS", ["Adam"])[10]
        inside += found.low <= 2.0 <= found.high
    assert inside >= 50


def test_beyond_what_was_measured_only_bounds_are_told():
    assert speed_up(CURVE, {10: 0.2}) == SpeedUp(4.0, 4.0, None, "at least")
    assert speed_up(CURVE, {20: 1.1}) == SpeedUp(0.5, None, 0.5, "at most")
    unsure = speed_up(CURVE, {20: 0.27}, noise=0.6)
    assert unsure.ratio < 2.0 and unsure.bound is None and unsure.low < unsure.ratio and unsure.high is None


def test_there_is_none_of_a_diverged_optimizer_or_without_baselines():
    lone = [row("L3RS", 0, 0.5)]
    assert speed_ups(final_rows([*lone, row("Adam", 0, 1.0)]), "L3RS", ["Muon"]) == {}
    assert speed_ups(final_rows([*lone, row("Adam", 1, 1.0)]), "L3RS", ["Adam"]) == {}, "they share no task"
    assert speed_ups(final_rows([*lone, row("Adam", 0, math.inf)]), "L3RS", ["Adam"]) == {}
    assert speed_ups(final_rows([row("L3RS", 0, math.inf), row("Adam", 0, 1.0)]), "L3RS", ["Adam"]) == {}


def test_the_best_of_several_baselines_counts_at_each_length():
    several = [*rows({10: 2.0, 20: 0.5}, {10: 0.5}), *(row("SGD", task, 1.0 + 0.03 * task, 10) for task in range(12))]
    found = speed_ups(final_rows(several), "L3RS", ["Adam", "SGD"])[10]
    assert found.ratio == pytest.approx(2.0) and found.low <= 2.0 <= found.high
