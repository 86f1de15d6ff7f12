"""
The data limit: the loss that a run's own batches give when they may be revisited many times (ours).

It says how far anything could go with these images, of which everybody else has a single pass. It is a reference line
and no rival: it wins nothing, and is never the best baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hf_l3rs.evaluation.baselines import BASELINES, Baseline, Contender
from hf_l3rs.evaluation.rows import Row, final_rows, ranked
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.pools import Batch


DATA_LIMIT = "Data limit"

# What is searched: passes x learning rates of Adam, which falls to zero along a half cosine over all passes.
PASSES = (3, 8, 20)
LEARNING_RATES = (1e-3, 2e-3, 4e-3, 7e-3)

_ALL = [
    replace(
        BASELINES["Adam cosine"], name=f"{DATA_LIMIT}, {passes} passes", learning_rates=LEARNING_RATES, passes=passes
    )
    for passes in PASSES
]

# By name: rows are told apart by names and learning rates.
DATA_LIMITS: dict[str, Baseline] = {limit.name: limit for limit in _ALL}


def is_data_limit(optimizer: str) -> bool:
    """Returns whether rows of this name are of the data limit."""
    return optimizer in DATA_LIMITS


def best_data_limits(rows: Iterable[Row]) -> dict[int, Contender]:
    """
    Chooses passes and learning rate of the data limit, as [`~hf_l3rs.evaluation.benchmark.best_rates`] does.

    Args:
        rows (`Iterable[Row]`): Of a search. Other optimizers do not matter.

    Returns:
        `dict[int, Contender]`: For each length of run that was searched.
    """
    finals = final_rows(row for row in rows if is_data_limit(row.optimizer))
    table = ranked(finals, ("num_training_steps", "optimizer", "learning_rate"))
    best: dict[int, Contender] = {}
    for horizon, name, rate in zip(table.num_training_steps.tolist(), table.optimizer, table.learning_rate.tolist()):
        best.setdefault(horizon, DATA_LIMITS[name].at(rate))
    return best


def revisited(task: Task, passes: int) -> Task:
    """Returns a task whose batches come `passes` times, in their order, and that is as many times as long."""
    if passes == 1:
        return task
    batches = _Revisited(task.batches, task.num_training_steps, passes)
    return task._replace(batches=batches, num_training_steps=len(batches))


class _Revisited(Sequence[Batch]):
    """The first batches of some, again and again; each is looked up when it is asked for."""

    def __init__(self, batches: Sequence[Batch], num_batches: int, passes: int) -> None:
        self.batches, self.num_batches, self.passes = batches, num_batches, passes

    def __len__(self) -> int:
        return self.num_batches * self.passes

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.batches[index % self.num_batches]
