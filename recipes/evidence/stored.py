"""What recipes/results holds: for each released L3RS the rows of all its settings, and the searches before them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.job import ROWS_NAME, SEARCH_NAME
from hf_l3rs.evaluation.report import comparable
from hf_l3rs.evaluation.store import COLUMNS, Row, read_rows, to_csv
from hf_l3rs.files import write_files
from hf_l3rs.hub.results import OPTIMIZER_NAME


RESULTS = Path(__file__).resolve().parents[1] / "results"
SETTING = "setting"
SEARCH = "search_"  # before a setting's name: the search for learning rates


def read_stored(name: str) -> dict[str, list[Row]]:
    """Reads the rows of each setting of an L3RS, a folder of recipes/results, and of the searches before them."""
    path = RESULTS / name / ROWS_NAME
    rows = read_rows(path)
    with path.open(encoding="utf-8", newline="") as lines:
        settings = [line.get(SETTING) for line in csv.DictReader(lines)]
    table: dict[str, list[Row]] = {}
    for setting, row in zip(settings, rows, strict=True):
        if not setting:
            raise DataError(f"{path} has no column {SETTING}; restore the file.")
        table.setdefault(setting, []).append(row)
    return table


def rivals_in(rows: Iterable[Row]) -> list[str]:
    """Returns the baselines that rows hold: every optimizer but L3RS, also untrained."""
    names = dict.fromkeys(row.optimizer for row in comparable(rows))
    return [name for name in names if name.split(",")[0] != OPTIMIZER_NAME]


def to_stored(table: Mapping[str, Iterable[Row]]) -> str:
    """Returns rows by setting as CSV, with the setting in the first column."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow((SETTING, *COLUMNS))
    for setting, rows in table.items():
        text.writelines(f"{setting},{line}\n" for line in to_csv(rows, header=False).splitlines())
    return text.getvalue()


def store(name: str, setting: str, folder: Path) -> None:
    """Stores the rows and the search that an evaluation wrote into a folder, in place of what the setting had."""
    table = read_stored(name) if (RESULTS / name / ROWS_NAME).exists() else {}
    for key, file in ((setting, folder / ROWS_NAME), (f"{SEARCH}{setting}", folder / SEARCH_NAME)):
        if file.exists():
            table[key] = read_rows(file)
    write_files(RESULTS / name, {ROWS_NAME: to_stored(table).encode()})
