"""Rows of a small comparison that tests share."""

from hf_l3rs.evaluation.store import Row


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
