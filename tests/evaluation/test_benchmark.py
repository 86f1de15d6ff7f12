"""Every contender gets the same tasks and nothing of who ran before; searches are full; what stops goes on."""

import logging
import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from hf_l3rs.distributed import make_accelerator
from hf_l3rs.evaluation.baselines import BASELINES, Contender, l3rs_contender
from hf_l3rs.evaluation.benchmark import best_rates, comparison_runs, draw_task, run_all, run_one, search_runs
from hf_l3rs.evaluation.store import RowStore, Run, read_rows
from hf_l3rs.meta.evolution import rollout
from tests.evaluation.rows import row
from tests.meta.problems import make_model, make_network, make_tasks


def sgd(rate, seen=None):
    """SGD; `seen` gets the weights that it is made with."""

    def build(model, num_training_steps):
        if seen is not None:
            seen.append(parameters_to_vector(model.parameters()).clone())
        return torch.optim.SGD(model.parameters(), lr=rate), None

    return Contender("SGD", build)


def test_all_contenders_get_the_same_task():
    """The same weights, also where an optimizer copies them when it is made, and batches, whatever ran before."""
    tasks, model, seen = make_tasks(), make_model(seed=3), []
    first = run_one(model, tasks, 7, Run(sgd(0.1, seen), 2, 5), evaluate_every=2)
    run_one(model, tasks, 7, Run(l3rs_contender(make_network()), 1, 5))
    again = run_one(model, tasks, 7, Run(sgd(0.1, seen), 2, 5), evaluate_every=2)
    assert first == again and [entry.step for entry in first] == [0, 2, 4, 5]
    task = draw_task(tasks, 7, 2, 5)
    assert task.num_training_steps == 5 and task.seed == draw_task(tasks, 7, 2, 9).seed
    drawn = torch.cat([task.initial_state[name].flatten() for name, _ in model.named_parameters()])
    assert all(torch.equal(each, drawn) for each in seen)


def test_a_contender_sees_nothing_of_who_ran_before():
    """Gradients that an optimizer of a part of the model leaves in the rest do not enter the next one's first step."""

    def of_a_part(model, num_training_steps):
        return torch.optim.SGD(list(model.parameters())[-2:], lr=0.1), None

    contenders = [
        Contender("a part", of_a_part),
        BASELINES["Adam cosine"].at(0.01),
        BASELINES["SGD constant"].at(0.01),
    ]
    contenders.append(l3rs_contender(make_network(trained=True)))
    alone = {each.name: run_one(make_model(), make_tasks(), 7, Run(each, 0, 3), 1) for each in contenders}
    for order in (contenders, contenders[::-1], contenders[:1] * 2 + contenders[1:]):
        model = make_model()
        for contender in order:
            assert run_one(model, make_tasks(), 7, Run(contender, 0, 3), 1) == alone[contender.name]


def test_an_l3rs_runs_as_its_meta_training_ran_it():
    network = make_network(trained=True, max_grad_norm=1e-3)
    task = draw_task(make_tasks(), 7, 0, 4)
    (clipped,) = run_one(make_model(), make_tasks(), 7, Run(l3rs_contender(network), 0, 4))
    assert clipped.loss == float(f"{rollout(make_model(), network, task).loss:.6g}")
    (free,) = run_one(make_model(), make_tasks(), 7, Run(l3rs_contender(make_network(trained=True)), 0, 4))
    assert clipped.loss != free.loss


def test_a_run_that_diverges_has_all_its_rows():
    rows = run_one(make_model(), make_tasks(), 0, Run(sgd(1e9), 0, 25), evaluate_every=5)
    assert [each.step for each in rows] == [0, 5, 10, 15, 20, 25]
    assert {(each.loss, each.accuracy) for each in rows[3:]} == {(math.inf, 0.0)}
    # the training loss, of before the step, is finite here
    (last,) = run_one(make_model(), make_tasks(), 0, Run(sgd(math.nan), 0, 1))
    assert (last.loss, last.accuracy) == (math.inf, 0.0)


def test_search_is_full_and_compared_at_what_it_found():
    adam, fixed, probe = (BASELINES[name] for name in ("Adam constant", "Adam at 1e-3", "Linear probe"))
    runs = search_runs([adam, fixed, probe], num_tasks=2, horizons=[10, 20])
    assert len(runs) == 2 * 2 * len(adam.learning_rates) and {run.contender.name for run in runs} == {adam.name}
    rates = {"Adam constant": {10: 0.3, 20: 0.4}}
    chosen = comparison_runs([adam, fixed, probe], rates, [l3rs_contender(make_network())], 2, [10, 20])
    assert [run.key for run in chosen] == [
        (*contender, task, steps)
        for steps in (10, 20)
        for contender in ((adam.name, rates[adam.name][steps]), (fixed.name, 1e-3), (probe.name, None), ("L3RS", None))
        for task in (0, 1)
    ]


def test_rates_are_chosen_by_the_mean_of_those_that_diverge_least():
    def losses(name, rate, *values):
        return [row(name, task, loss, rate=rate) for task, loss in enumerate(values)]

    rows = [
        *losses("mean", 0.1, 1.0, 3.0),
        *losses("mean", 0.2, 1.5, 1.6),
        row("mean", 0, 0.0, step=5, rate=0.1),
        row("mean", 0, 1.0, steps=20, rate=0.1),
        row("mean", 0, math.inf, steps=20, rate=0.2),
        *losses("Adam", 0.1, 3.0, 3.0, 3.0),
        *losses("Adam", 0.2, math.inf, 1.0, 1.0),
        *losses("SGD", 0.1, math.inf, math.inf, 1.0),
        *losses("SGD", 0.2, math.inf, 5.0, 5.0),
        *losses("SGD", 0.3, 6.0, math.inf, 5.0),
        *losses("lost", 0.1, math.inf),
        *losses("lost", 0.2, math.inf),
    ]
    assert best_rates(rows) == {"mean": {10: 0.2, 20: 0.1}, "Adam": {10: 0.1}, "SGD": {10: 0.2}, "lost": {10: 0.1}}


def test_an_interrupted_comparison_keeps_its_rows_and_goes_on(tmp_path, caplog):
    made, stop_at = [], 3

    def build(model, num_training_steps):
        if len(made) == stop_at:
            raise KeyboardInterrupt
        made.append(num_training_steps)
        return torch.optim.SGD(model.parameters(), lr=0.1), None

    runs = [Run(Contender("SGD", build), task, steps) for steps in (2, 3) for task in range(3)]

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
