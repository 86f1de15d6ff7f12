"""The raw rows of a benchmark on disk, beside their summary."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.benchmark import Row
from hf_l3rs.files import write_files


def write_rows(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Writes rows as CSV, all or nothing; `datasets.load_dataset("csv", data_files=...)` reads it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [spec.name for spec in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row.to_dict(), "loss": f"{row.loss:.6g}", "accuracy": f"{row.accuracy:.6g}"})
    path = Path(path)
    write_files(path.parent, {path.name: text.getvalue().encode()})


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """
    Reads what [`write_rows`] wrote.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                Row(
                    optimizer=line["optimizer"],
                    learning_rate=float(line["learning_rate"]) if line["learning_rate"] else None,
                    task=int(line["task"]),
                    num_training_steps=int(line["num_training_steps"]),
                    step=int(line["step"]),
                    loss=float(line["loss"]),
                    accuracy=float(line["accuracy"]),
                )
                for line in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} does not hold the rows of a benchmark ({error}); run it again.") from error
