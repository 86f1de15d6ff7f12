"""The data limit: many passes over a run's own batches, at the best of the cells that were searched."""

import json
import math

import pytest

from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.benchmark import measure, run_one
from hf_l3rs.evaluation.data_limit import (
    DATA_LIMITS,
    LEARNING_RATES,
    PASSES,
    best_data_limits,
    is_data_limit,
    revisited,
)
from hf_l3rs.evaluation.rows import Run
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import fine_tune
from tests.evaluation.rows import row
from tests.meta.problems import make_model, make_tasks


def test_there_is_one_for_each_number_of_passes_and_none_is_a_baseline():
    assert [limit.passes for limit in DATA_LIMITS.values()] == list(PASSES)
    assert {limit.learning_rates for limit in DATA_LIMITS.values()} == {LEARNING_RATES}
    assert not DATA_LIMITS.keys() & BASELINES.keys()
    assert is_data_limit("Data limit, 8 passes") and not is_data_limit("Adam cosine")
    assert len({json.dumps(limit.identity) for limit in DATA_LIMITS.values()}) == len(PASSES)


def test_batches_come_again_in_their_order():
    task = make_tasks().draw(0, 0, 0)._replace(batches=["a", "b", "c", "not one of the run"], num_training_steps=3)
    again = revisited(task, 2)
    assert list(again.batches) == ["a", "b", "c", "a", "b", "c"] and again.num_training_steps == len(again.batches)
    assert revisited(task, 1) is task


def test_a_run_is_adam_over_all_passes_and_counts_as_one():
    limit, task, model = DATA_LIMITS["Data limit, 3 passes"].at(0.01), make_tasks().draw(0, 0, 0), make_model()
    optimizer, scheduler = BASELINES["Adam cosine"].at(0.01).build(model, 12)
    long = task._replace(batches=list(task.batches) * 3, num_training_steps=12)
    expected = fine_tune(model, long, optimizer, scheduler=scheduler).evaluations[12]
    assert measure(make_model(), limit, task) == {4: expected}
    rows = run_one(make_model(), make_tasks(), 7, Run(limit, 0, 4), evaluate_every=1)
    assert [(each.optimizer, each.num_training_steps, each.step) for each in rows] == [("Data limit, 3 passes", 4, 4)]
    assert rows[0].is_final


def test_more_passes_over_the_same_images_get_further():
    task, model = make_tasks().draw(0, 0, 0), make_model()
    losses = [measure(model, limit.at(0.004), task)[4].loss for limit in DATA_LIMITS.values()]
    assert measure(model, BASELINES["Adam cosine"].at(0.004), task)[4].loss > losses[0] > losses[1] > losses[2]


def test_the_best_cell_is_chosen_for_each_length():
    three, eight, _ = DATA_LIMITS
    rows = [
        *(row(three, task, loss, rate=0.001) for task, loss in enumerate([0.3, 0.5])),
        *(row(three, task, loss, rate=0.002) for task, loss in enumerate([0.1, math.inf])),
        *(row(eight, task, loss, rate=0.001) for task, loss in enumerate([0.5, 0.2])),
        *(row(eight, task, loss, rate=0.002) for task, loss in enumerate([0.5, 0.5])),
        *(row(name, 0, loss, steps=20, rate=0.002) for name, loss in ((three, 0.1), (eight, 0.2))),
        row("Adam cosine", 0, 0.0, rate=0.01),
        row("Adam cosine", 0, 0.0, steps=30, rate=0.01),
    ]
    best = best_data_limits(rows)
    assert {steps: (each.name, each.learning_rate, each.passes) for steps, each in best.items()} == {
        10: (eight, 0.001, 8),
        20: (three, 0.002, 3),
    }
    assert best_data_limits([]) == {}


@pytest.mark.parametrize("index", [-1, 6])
def test_there_is_no_batch_beyond_the_last_pass(index):
    with pytest.raises(IndexError):
        revisited(make_tasks(horizon=Horizon(3, 3)).draw(0, 0, 0), 2).batches[index]
