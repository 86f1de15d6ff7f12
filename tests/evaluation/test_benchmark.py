import math

import pytest
import torch

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.baselines import BASELINES, Baseline, Contender, l3rs_contender
from hf_l3rs.evaluation.benchmark import (
    best_rates,
    comparison_runs,
    draw_task,
    run_one,
    search_runs,
    tuned_losses,
)
from hf_l3rs.evaluation.plots import plot_learning_curves
from hf_l3rs.evaluation.report import (
    best_baseline,
    runs_to_pay_back,
    steps_of_baselines,
    steps_to_reach,
    summarise,
    to_markdown,
    to_results,
)
from hf_l3rs.evaluation.results import Row, Run, read_rows, write_rows
from hf_l3rs.meta.trainer import make_accelerator
from hf_l3rs.tasks.inner_loop import fine_tune
from tests.meta.problems import make_model, make_network, make_tasks


def row(optimizer, task, loss, steps=10, step=None, rate=None):
    return Row(optimizer, rate, task, steps, steps if step is None else step, loss, 1 - loss / 10)


ROWS = [
    *(row("Adam constant", task, loss) for task, loss in enumerate([1.0, 2.0, 3.0])),
    *(row("Adam cosine", task, loss) for task, loss in enumerate([1.0, 1.0, 4.0])),
    *(row("L3RS", task, loss) for task, loss in enumerate([0.5, 1.5, 2.0])),
    *(row("L3RS", task, 9.0, step=5) for task in range(3)),
    *(row(name, task, 0.5, steps=20) for task in range(3) for name in ("Adam constant", "Adam cosine", "L3RS")),
]
BASELINE_NAMES = ("Adam constant", "Adam cosine")


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
    assert [entry.step for entry in first] == [2, 4, 5]
    task = draw_task(tasks, 7, 2, 5)
    assert task.num_training_steps == 5 and task.seed == draw_task(tasks, 7, 2, 9).seed


def test_a_run_that_diverges_counts_as_infinite():
    def wild(model, num_training_steps):
        return torch.optim.SGD(model.parameters(), lr=1e9), None

    rows = run_one(make_model(), make_tasks(), 0, Run(Contender("wild", wild), 0, 15))
    assert rows[-1].is_final and rows[-1].loss == math.inf and rows[-1].accuracy == 0.0


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


def test_summary_is_against_the_best_baseline_of_each_horizon():
    assert best_baseline(ROWS, 10, BASELINE_NAMES) == "Adam constant"
    summary = next(s for s in summarise(ROWS, BASELINE_NAMES) if s.optimizer == "L3RS")
    assert summary.loss == pytest.approx(4 / 3)
    assert summary.loss_stderr == pytest.approx(0.7637626 / 3**0.5)
    assert summary.ratio == pytest.approx(2 / 3)
    assert (summary.wins, summary.num_tasks) == (3, 3)


def test_steps_to_reach():
    summaries = summarise(ROWS, BASELINE_NAMES)
    assert steps_to_reach(summaries, "L3RS", loss=1.5) == 10
    assert steps_to_reach(summaries, "L3RS", loss=0.6) == 20
    assert steps_to_reach(summaries, "L3RS", accuracy=0.94) == 20
    assert steps_to_reach(summaries, "L3RS", loss=0.1) is None


def test_steps_that_a_baseline_needs_and_when_meta_training_is_paid_back():
    summaries = summarise(ROWS, BASELINE_NAMES)  # the best baseline has 2.0 after 10 steps and 0.5 after 20
    assert steps_of_baselines(summaries, BASELINE_NAMES, 1.0) == pytest.approx(10 * 2**0.5)
    assert steps_of_baselines(summaries, BASELINE_NAMES, 0.1) is None
    assert steps_of_baselines(summaries, BASELINE_NAMES, 3.0) is None
    assert runs_to_pay_back(1000, 10, 30.0) == 50
    assert runs_to_pay_back(1000, 10, 9.0) is None and runs_to_pay_back(1000, 10, None) is None


def test_the_reference_is_tuned_on_the_tasks_themselves():
    tasks, model = [make_tasks().draw(0, 0, index) for index in range(2)], make_model()
    baseline = Baseline("SGD", lambda params, lr: torch.optim.SGD(params, lr=lr), learning_rates=(1e-9, 0.3))
    losses = {}
    for rate in baseline.learning_rates:
        finals = []
        for task in tasks:
            optimizer, _ = baseline.at(rate).build(model, 4)
            finals.append(fine_tune(model, task, optimizer).evaluations[4].loss)
        losses[rate] = sum(finals) / 2
    assert tuned_losses(make_accelerator(), model, tasks, [baseline]) == {"SGD": min(losses.values())}


def test_markdown_and_card_entries():
    summaries = summarise(ROWS, BASELINE_NAMES)
    lines = to_markdown(summaries).splitlines()
    assert len(lines) == 2 + 6
    assert "Adam constant (best baseline)" in lines[2] and "3 of 3" in lines[4]
    results = to_results(
        summaries, BASELINE_NAMES, dataset="blobs", split="test", setting="in domain", command="python x.py"
    )
    assert [(entry.optimizer, entry.num_training_steps) for entry in results] == [("L3RS", 10), ("L3RS", 20)]
    assert results[0].baseline == "Adam constant, tuned" and results[0].baseline_loss == pytest.approx(2.0)


def test_rows_survive_the_disk(tmp_path):
    rows = [row("L3RS", 0, 0.125), row("Adam", 1, math.inf, rate=0.01)]
    write_rows(rows, tmp_path / "rows.csv")
    assert read_rows(tmp_path / "rows.csv") == [rows[0], Row("Adam", 0.01, 1, 10, 10, math.inf, -math.inf)]
    (tmp_path / "rows.csv").write_text("nonsense\n1\n")
    with pytest.raises(DataError, match="does not hold the rows"):
        read_rows(tmp_path / "rows.csv")


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot_learning_curves(ROWS, tmp_path / "curves.png", "title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
