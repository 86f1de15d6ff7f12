"""Variants of an L3RS on models that it never saw stand beside the best baseline, tuned or not."""

from hf_l3rs.evaluation.rows import Row
from recipes.evidence.transfer import FIXED, UNTOUCHED, to_table


def rows(*losses):
    rates = {FIXED: 1e-3, "Adam cosine": 2e-3}
    return [
        Row(name, rates.get(name), task, 20, 20, loss, 0.5)
        for name, of_tasks in losses
        for task, loss in enumerate(of_tasks)
    ]


def test_a_line_for_each_model_and_a_column_for_each_variant():
    measured = {
        "swin": rows(
            (UNTOUCHED, (0.5, 0.7)), ("40 inner steps", (0.4, 0.4)), (FIXED, (0.6, 0.6)), ("Adam cosine", (1, 1))
        ),
        "vit": rows((UNTOUCHED, (0.5, float("inf"))), ("Adam cosine", (0.4, 0.4))),
    }
    header, _, swin, vit = to_table(measured).splitlines()
    assert header == "| model | steps | untouched | 40 inner steps | Adam at 1e-3 | best baseline |"
    assert swin == (
        "| swin | 20 | 0.600 ± 0.100, 1 of 2 | 0.400 ± 0.000, 2 of 2 | 0.600 ± 0.000 | 0.600 ± 0.000 (Adam at 1e-3) |"
    )
    assert (
        vit.startswith("| vit | 20 | diverged on 1 of 2, median") and "| 0.400 ± 0.000 (Adam cosine at 0.002) |" in vit
    )
