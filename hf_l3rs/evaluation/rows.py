"""What a benchmark consists of, runs, and what it measures, rows: in memory, as a table of pandas, and as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.baselines import Contender
from hf_l3rs.files import write_files


# What tells one run from another: optimizer, learning rate, task, number of steps.
RunKey = tuple[str, float | None, int, int]


@dataclass(frozen=True)
class Run:
    """
    One run of a benchmark: a contender on a task for a number of steps.

    Args:
        contender ([`~hf_l3rs.evaluation.baselines.Contender`]): The optimizer.
        task (`int`): Index of the task.
        num_training_steps (`int`): Length of the run.
    """

    contender: Contender
    task: int
    num_training_steps: int

    @property
    def key(self) -> RunKey:
        """What tells this run from others, as in [`Row.run`]."""
        return self.contender.name, self.contender.learning_rate, self.task, self.num_training_steps


@dataclass(frozen=True)
class Row:
    """
    One evaluation of one run. Six significant digits are kept, so that a row in memory is the row on disk.

    Args:
        optimizer (`str`): Name of the contender.
        learning_rate (`float`, *optional*): The one it ran with.
        task (`int`): Index of the task; the same index is the same task for all contenders.
        num_training_steps (`int`): Planned length of the run.
        step (`int`): Steps taken at the evaluation.
        loss (`float`): Mean cross entropy on the evaluation set, in nats; infinite if the run diverged.
        accuracy (`float`): Share classified right; 0 if the run diverged.
    """

    optimizer: str
    learning_rate: float | None
    task: int
    num_training_steps: int
    step: int
    loss: float
    accuracy: float

    def __post_init__(self) -> None:
        diverged = not math.isfinite(self.loss)
        object.__setattr__(self, "loss", math.inf if diverged else _rounded(self.loss))
        object.__setattr__(self, "accuracy", 0.0 if diverged else _rounded(self.accuracy))

    @property
    def is_final(self) -> bool:
        """Whether this is the end of its run."""
        return self.step == self.num_training_steps

    @property
    def run(self) -> RunKey:
        """The run that this is a part of, as in [`Run.key`]."""
        return self.optimizer, self.learning_rate, self.task, self.num_training_steps


COLUMNS = tuple(spec.name for spec in fields(Row))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def to_csv(rows: Iterable[Row], header: bool = True) -> str:
    """Returns rows as CSV, one a line; `datasets.load_dataset("csv", data_files=...)` reads the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        *run, loss, accuracy = astuple(row)
        writer.writerow([*run, f"{loss:.6g}", f"{accuracy:.6g}"])
    return text.getvalue()


def write_rows(rows: Iterable[Row], path: str | os.PathLike[str]) -> None:
    """Writes rows as CSV, all or nothing."""
    path = Path(path)
    write_files(path.parent, {path.name: to_csv(rows).encode()})


def read_rows(path: str | os.PathLike[str], whole: bool = True) -> list[Row]:
    """
    Reads what [`write_rows`] wrote.

    Args:
        path (`str` or `os.PathLike`): The file.
        whole (`bool`, *optional*, defaults to `True`):
            Whether the file was written at once; false drops half a last line, as a killed process leaves it.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        data = Path(path).read_bytes()
        lines = csv.DictReader(io.StringIO((data if whole else data[: data.rfind(b"\n") + 1]).decode(), newline=""))
        if not set(COLUMNS) <= set(lines.fieldnames or ()):
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        return [_parse(line) for line in lines]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} does not hold the rows of a benchmark ({error}); run it again.") from error


def _parse(line: dict[str, Any]) -> Row:
    if None in line:
        raise ValueError(f"a line has more than {len(COLUMNS)} values")
    return Row(
        optimizer=line["optimizer"],
        learning_rate=float(line["learning_rate"]) if line["learning_rate"] else None,
        task=int(line["task"]),
        num_training_steps=int(line["num_training_steps"]),
        step=int(line["step"]),
        loss=float(line["loss"]),
        accuracy=float(line["accuracy"]),
    )


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Returns rows as a table, with a column for each field of [`Row`]; a learning rate that is `None` is NaN."""
    return pd.DataFrame(map(astuple, rows), columns=list(COLUMNS)).astype({"learning_rate": float})


def final_rows(rows: Iterable[Row]) -> pd.DataFrame:
    """Returns the ends of all runs as a table, as [`to_frame`] does."""
    return to_frame(row for row in rows if row.is_final)


def ranked(finals: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """
    Ranks groups of final rows, best first: by the fewest diverged runs, then by the lowest mean loss of the others.

    Args:
        finals (`pandas.DataFrame`): Of [`final_rows`].
        by (`Sequence[str]`): The columns that make a group.

    Returns:
        `pandas.DataFrame`: A row for each group, with the columns `by`, `num_diverged` and `loss`. Of groups that are
        equally good, the one whose rows come first is first.
    """
    diverged = finals.loss == math.inf
    groups = finals.assign(num_diverged=diverged, loss=finals.loss.where(~diverged)).groupby(list(by), sort=False)
    table = groups.agg(num_diverged=("num_diverged", "sum"), loss=("loss", "mean")).reset_index()
    return table.sort_values(["num_diverged", "loss"], kind="stable")
