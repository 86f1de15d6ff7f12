"""Variations are compared with the first, task by task."""

import math

from hf_l3rs.evaluation.store import Row
from recipes.evidence.ablation import variations_table


def rows_of(losses):
    return [Row(name, None, task, 10, 10, loss, 0.5) for name, own in losses.items() for task, loss in enumerate(own)]


def test_differences_are_of_pairs():
    """A variation that is 0.1 worse on each task has no standard error, however far tasks are apart."""
    rows = rows_of({"base": [0.2, 0.4, 0.9], "worse": [0.3, 0.5, 1.0], "lost": [0.2, math.inf, 0.2]})
    assert variations_table(rows).splitlines()[2:] == [
        "| base | 0.500 |",
        "| worse | 0.600 (+0.100 ± 0.000) |",
        "| lost | diverged on 1 |",
    ]
    assert variations_table(rows_of({"base": [0.5], "worse": [0.6]})).endswith("| worse | 0.600 (+0.100) |")
