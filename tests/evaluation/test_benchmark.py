import logging
import math

import pytest
import torch

from hf_l3rs.distributed import make_accelerator
from hf_l3rs.evaluation.baselines import BASELINES, Contender, l3rs_contender
from hf_l3rs.evaluation.benchmark import (
    best_rates,
    comparison_runs,
    draw_task,
    run_all,
    run_one,
    search_runs,
)
from hf_l3rs.evaluation.store import RowStore, Run, read_rows
from hf_l3rs.meta.evolution import rollout
from tests.evaluation.rows import row
from tests.meta.problems import make_model, make_network, make_tasks


def test_all_contenders_get_the_same_task():
    """The comparison is paired: same initial weights, batches and order, whatever ran before."""
    tasks = make_tasks()
    seen = []

    def spying(model, num_training_steps):
        seen.append([parameter.clone() for parameter in model.parameters()])
        return torch.optim.SGD(model.parameters(), lr=0.1), None

    model = make_model()
    first = run_one(model, tasks, 7, Run(Contender("a", spying), 2, 5), evaluate_every=2)
    run_one(model, tasks, 7, Run(l3rs_contender(make_network()), 1, 5))
    again = run_one(model, tasks, 7, Run(Contender("a", spying), 2, 5), evaluate_every=2)
    assert first == again
    assert [entry.step for entry in first] == [0, 2, 4, 5]
    task = draw_task(tasks, 7, 2, 5)
    assert task.num_training_steps == 5 and task.seed == draw_task(tasks, 7, 2, 9).seed


def test_a_run_that_diverges_counts_as_infinite():
    def wild(model, num_training_steps):
        return torch.optim.SGD(model.parameters(), lr=1e9), None

    rows = run_one(make_model(), make_tasks(), 0, Run(Contender("wild", wild), 0, 15))
    assert rows[-1].is_final and rows[-1].loss == math.inf and rows[-1].accuracy == 0.0


def test_a_contender_sees_nothing_of_who_ran_before():
    """Gradients that an optimizer of a part of the model leaves in the rest do not enter the next one's first step."""

    def of_a_part(model, num_training_steps):
        return torch.optim.SGD(list(model.parameters())[-2:], lr=0.1), None

    contenders = [
        Contender("a part", of_a_part),
        BASELINES["Adam cosine"].at(0.01),
        BASELINES["SGD constant"].at(0.01),
        l3rs_contender(make_network(trained=True)),
    ]
    alone = {each.name: run_one(make_model(), make_tasks(), 7, Run(each, 0, 3), 1) for each in contenders}
    for order in (contenders, contenders[::-1], contenders[:1] * 2 + contenders[1:]):
        model = make_model()
        for contender in order:
            assert run_one(model, make_tasks(), 7, Run(contender, 0, 3), 1) == alone[contender.name]


def test_an_optimizer_that_copies_the_weights_when_it_is_made_gets_those_of_the_task():
    tasks, copies = make_tasks(), []

    def build(model, num_training_steps):
        copies.append(torch.nn.utils.parameters_to_vector(model.parameters()).clone())
        return torch.optim.SGD(model.parameters(), lr=0.1), None

    run_one(make_model(seed=3), tasks, 7, Run(Contender("lookahead", build), 1, 2))
    state = draw_task(tasks, 7, 1, 2).initial_state
    assert torch.equal(copies[0], torch.cat([state[name].flatten() for name, _ in make_model().named_parameters()]))


def test_an_l3rs_runs_as_its_meta_training_ran_it():
    network = make_network(trained=True, max_grad_norm=1e-3)
    task = draw_task(make_tasks(), 7, 0, 4)
    (clipped,) = run_one(make_model(), make_tasks(), 7, Run(l3rs_contender(network), 0, 4))
    assert clipped.loss == float(f"{rollout(make_model(), network, task).loss:.6g}")
    (free,) = run_one(make_model(), make_tasks(), 7, Run(l3rs_contender(make_network(trained=True)), 0, 4))
    assert clipped.loss != free.loss


def sgd(rate):
    return Contender("SGD", lambda model, num_training_steps: (torch.optim.SGD(model.parameters(), lr=rate), None))


def test_a_run_that_diverges_has_all_its_rows():
    rows = run_one(make_model(), make_tasks(), 0, Run(sgd(1e9), 0, 25), evaluate_every=5)
    assert [each.step for each in rows] == [0, 5, 10, 15, 20, 25]
    assert {(each.loss, each.accuracy) for each in rows[3:]} == {(math.inf, 0.0)}


def test_an_evaluation_that_is_not_a_number_counts_as_diverged():
    """The training loss, of before the step, is finite here."""
    (last,) = run_one(make_model(), make_tasks(), 0, Run(sgd(math.nan), 0, 1))
    assert (last.loss, last.accuracy) == (math.inf, 0.0)


def test_search_is_full_and_chooses_by_the_mean():
    adam = BASELINES["Adam constant"]
    runs = search_runs([adam], num_tasks=2, horizons=[10, 20])
    assert len(runs) == 2 * 2 * len(adam.learning_rates)
    rows = [
        *(row("Adam", task, loss, rate=0.1) for task, loss in enumerate([1.0, 3.0])),
        *(row("Adam", task, loss, rate=0.2) for task, loss in enumerate([1.5, 1.6])),
        row("Adam", 0, 0.0, step=5, rate=0.1),
        row("Adam", 0, 1.0, steps=20, rate=0.1),
        row("Adam", 0, math.inf, steps=20, rate=0.2),
    ]
    assert best_rates(rows) == {"Adam": {10: 0.2, 20: 0.1}}
    chosen = comparison_runs([adam], {"Adam constant": {10: 0.3}}, [l3rs_contender(make_network())], 2, [10])
    assert [(run.contender.name, run.contender.learning_rate, run.task) for run in chosen] == [
        ("Adam constant", 0.3, 0),
        ("Adam constant", 0.3, 1),
        ("L3RS", None, 0),
        ("L3RS", None, 1),
    ]


def test_what_needs_no_tuning_is_not_searched_and_runs_at_its_only_rate():
    adam, default = BASELINES["Adam constant"], BASELINES["Adam at 1e-3"]
    assert search_runs([default, BASELINES["Linear probe"]], 2, [10]) == []
    assert {run.contender.name for run in search_runs([default, adam], 1, [10])} == {"Adam constant"}
    runs = comparison_runs([default, BASELINES["Linear probe"]], {}, [], 1, [10, 20])
    names = (("Adam at 1e-3", 1e-3), ("Linear probe", None))
    assert [run.key for run in runs] == [(*name, 0, steps) for steps in (10, 20) for name in names]


def test_a_rate_that_diverges_loses_against_one_that_does_not():
    rows = [
        *(row("Adam", task, loss, rate=0.1) for task, loss in enumerate([3.0, 3.0, 3.0])),
        *(row("Adam", task, loss, rate=0.2) for task, loss in enumerate([math.inf, 1.0, 1.0])),
        *(row("SGD", task, loss, rate=0.1) for task, loss in enumerate([math.inf, math.inf, 1.0])),
        *(row("SGD", task, loss, rate=0.2) for task, loss in enumerate([math.inf, 5.0, 5.0])),
        *(row("SGD", task, loss, rate=0.3) for task, loss in enumerate([6.0, math.inf, 5.0])),
        *(row("lost", task, math.inf, rate=rate) for rate in (0.1, 0.2) for task in range(3)),
    ]
    assert best_rates(rows) == {"Adam": {10: 0.1}, "SGD": {10: 0.2}, "lost": {10: 0.1}}


def test_an_interrupted_comparison_keeps_its_rows_and_goes_on(tmp_path, caplog):
    made, stop_at = [], 3

    def build(model, num_training_steps):
        if len(made) == stop_at:
            raise KeyboardInterrupt
        made.append(num_training_steps)
        return torch.optim.SGD(model.parameters(), lr=0.1), None

    contender = Contender("SGD", build)
    runs = [Run(contender, task, steps) for steps in (2, 3) for task in range(3)]

    def carry_out(folder):
        store = RowStore(folder / "rows.csv", {"seed": 7})
        return run_all(make_accelerator(), make_model(), make_tasks(), 7, runs, store, "running", 1)

    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        carry_out(tmp_path / "stopped")
    assert "the same command goes on from there" in caplog.text
    stop_at = None
    resumed = carry_out(tmp_path / "stopped")
    assert len(made) == len(runs)
    assert resumed == carry_out(tmp_path / "whole") == read_rows(tmp_path / "stopped/rows.csv")
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == ["manifest.json", "rows.csv"]
