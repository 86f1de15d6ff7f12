"""Variations are compared with the first, task by task."""

import math

import pytest

from hf_l3rs.evaluation.plots import is_picture_of
from hf_l3rs.evaluation.rows import Row, to_csv
from recipes.evidence.ablation import compared, plot_ablation, to_table


def rows_of(losses):
    return [Row(name, None, task, 10, 10, loss, 0.5) for name, own in losses.items() for task, loss in enumerate(own)]


def test_differences_are_of_pairs():
    """A variation that is 0.1 worse on each task has no standard error, however far tasks are apart."""
    rows = rows_of({"base": [0.2, 0.4, 0.9], "worse": [0.3, 0.5, 1.0], "lost": [0.2, math.inf, 0.2]})
    tables = compared(rows, "base")
    worse = tables[10].loc["worse"]
    assert worse.loss == pytest.approx(0.6) and worse.difference == pytest.approx(0.1)
    assert worse.stderr == pytest.approx(0, abs=1e-12)
    costs = dict.fromkeys(("base", "worse", "lost"), {"inner_steps": 2700, "cost_in_plain_steps": 8640, "seconds": 9})
    lines = to_table(tables, costs, "base").splitlines()[2:]
    assert lines == [
        "| base | 0.500 | 2,700 | 8,640 | 9 |",
        "| worse | 0.600 (+0.100 ± 0.000) | 2,700 | 8,640 | 9 |",
        "| lost | diverged on 1 | 2,700 | 8,640 | 9 |",
    ]


def test_a_single_task_has_no_standard_error():
    tables = compared(rows_of({"base": [0.5], "worse": [0.6]}), "base")
    costs = dict.fromkeys(("base", "worse"), {"inner_steps": 1, "cost_in_plain_steps": 1, "seconds": 1})
    assert to_table(tables, costs, "base").splitlines()[-1] == "| worse | 0.600 (+0.100) | 1 | 1 | 1 |"


def test_a_picture_of_the_rows(tmp_path):
    pytest.importorskip("matplotlib")
    rows = rows_of({"base": [0.2, 0.4], "worse": [0.3, 0.5], "lost": [math.inf, math.inf]})
    plot_ablation(rows, tmp_path / "ablations.png")
    assert is_picture_of(tmp_path / "ablations.png", to_csv(rows).encode())
