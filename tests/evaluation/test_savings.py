"""What an L3RS saves: never from what was not measured, and at what its meta-training really cost."""

import math
from dataclasses import replace

import pytest

from hf_l3rs.errors import ArtifactError
from hf_l3rs.evaluation.report import summarise
from hf_l3rs.evaluation.savings import describe_savings, meta_training_cost, runs_to_pay_back, steps_of_baselines
from tests.evaluation.rows import BASELINE_NAMES, ROWS, WITH_LIMIT, row


SUMMARIES = summarise(ROWS, BASELINE_NAMES)  # the best baseline has 2.0 after 10 steps and 0.5 after 20


def test_steps_that_a_baseline_needs():
    assert steps_of_baselines(SUMMARIES, BASELINE_NAMES, 1.0) == pytest.approx(10 * 2**0.5)
    assert steps_of_baselines(SUMMARIES, BASELINE_NAMES, 0.1) is None
    assert steps_of_baselines(SUMMARIES, BASELINE_NAMES, 3.0) is None


def test_diverged_lengths_are_no_point_of_the_curve_of_the_best_baseline():
    rows = [*ROWS, *(row("Adam constant", task, math.inf, steps=15) for task in range(3))]
    assert steps_of_baselines(summarise(rows, BASELINE_NAMES), BASELINE_NAMES, 1.0) == pytest.approx(10 * 2**0.5)
    assert steps_of_baselines(summarise(rows, BASELINE_NAMES), BASELINE_NAMES, math.inf) is None


def test_the_data_limit_is_no_point_of_that_curve():
    summaries = summarise(WITH_LIMIT, BASELINE_NAMES)
    assert steps_of_baselines(summaries, BASELINE_NAMES, 1.0) == steps_of_baselines(SUMMARIES, BASELINE_NAMES, 1.0)


def test_when_meta_training_is_paid_back():
    assert runs_to_pay_back(1000, 10, 30.0) == 50
    assert runs_to_pay_back(1000, 10, 9.0) is None and runs_to_pay_back(1000, 10, None) is None
    assert runs_to_pay_back(1000, 10, 30.0, num_rates=11) == 9  # 20 steps and ten runs of 10 each time
    assert runs_to_pay_back(1000, 10, 10.0, num_rates=11) == 10
    assert runs_to_pay_back(1000, 10, 5.0, num_rates=11) == 11 and runs_to_pay_back(1000, 10, None, 11) is None


@pytest.mark.parametrize(
    "meta_training, cost",
    [
        ({}, None),
        ({"inner_steps": 1000}, 1000),
        ({"inner_steps": 1000, "cost_in_plain_steps": 3400.5}, 3400.5),
        ({"inner_steps": 1000, "cost_in_plain_steps": None}, 1000),
        ({"inner_steps": 0}, 0),
    ],
)
def test_differentiated_steps_cost_what_they_cost(meta_training, cost):
    assert meta_training_cost(meta_training) == cost


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1, "1000", True, [1]])
@pytest.mark.parametrize("name", ["cost_in_plain_steps", "inner_steps"])
def test_a_cost_that_is_no_number_of_steps_is_refused(name, cost):
    with pytest.raises(
        ArtifactError, match=f"{name} must be a number of at least 0, got .*download it again"
    ) as error:
        meta_training_cost({name: cost})
    assert "\n" not in str(error.value)


def test_both_paybacks_are_told():
    ten, twenty = describe_savings(SUMMARIES, BASELINE_NAMES, 2500.4).splitlines()
    needed = steps_of_baselines(SUMMARIES, BASELINE_NAMES, 4 / 3)
    assert ten == (
        f"- After 10 steps L3RS is where the best baseline (Adam constant at this length) is after {needed:.0f}; "
        f"meta-training, worth 2,500 plain steps, is paid back after {math.ceil(2500.4 / (needed - 10)):,} runs "
        "beside that baseline, whose learning rate is taken as known, and after "
        f"{math.ceil(2500.4 / (needed + 90))} runs beside a user who tries Adam's 11 learning rates on every new task."
    )
    assert twenty == (  # as good as the best baseline, so that only the search is saved
        "- After 20 steps L3RS is where the best baseline (Adam constant at this length) is after 20; meta-training, "
        "worth 2,500 plain steps, is paid back after 13 runs beside a user who tries Adam's 11 learning rates on "
        "every new task."
    )


def test_of_steps_that_were_not_measured_only_the_search_counts():
    rows = [each for each in ROWS if each.num_training_steps == 10]
    (line,) = describe_savings(summarise(rows, BASELINE_NAMES), BASELINE_NAMES, 1000).splitlines()
    assert (
        "a number of steps that was not measured; meta-training, worth 1,000 plain steps, is paid back after 10 runs "
    )
    assert line.count("runs") == 1 and "beside a user" in line
    worse = [replace(each, loss=9.0) if each.optimizer == "L3RS" else each for each in rows]
    (line,) = describe_savings(summarise(worse, BASELINE_NAMES), BASELINE_NAMES, 1000).splitlines()
    assert line.endswith("after a number of steps that was not measured.")


@pytest.mark.parametrize("cost", [None, 0])
def test_without_a_cost_nothing_is_said_of_it(cost):
    assert "meta-training" not in describe_savings(SUMMARIES, BASELINE_NAMES, cost)


def test_a_diverged_run_saves_nothing():
    rows = [replace(each, loss=math.inf) if each.run == ("L3RS", None, 1, 10) else each for each in ROWS]
    first = describe_savings(summarise(rows, BASELINE_NAMES), BASELINE_NAMES, 100).splitlines()[0]
    assert first == "- L3RS diverged on 1 of 3 tasks in runs of 10 steps."
