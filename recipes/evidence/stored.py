"""What recipes/results holds: for each released L3RS the rows of all its settings, and the searches before them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.job import ROWS_NAME, SEARCH_NAME
from hf_l3rs.evaluation.store import COLUMNS, Row, read_rows, to_csv
from hf_l3rs.files import write_files


RESULTS = Path(__file__).resolve().parents[1] / "results"
SETTING = "setting"


def read_stored(name: str, file: str = ROWS_NAME) -> dict[str, list[Row]]:
    """
    Reads a stored table.

    Args:
        name (`str`): The L3RS, a folder of recipes/results.
        file (`str`, *optional*, defaults to `"rows.csv"`): Or `search.csv`, the search for learning rates.

    Returns:
        `dict[str, list[Row]]`: The rows of each setting, by its name.

    Raises:
        DataError: If the file cannot be read.
    """
    path = RESULTS / name / file
    rows = read_rows(path)
    with path.open(encoding="utf-8", newline="") as lines:
        settings = [line.get(SETTING) for line in csv.DictReader(lines)]
    table: dict[str, list[Row]] = {}
    for setting, row in zip(settings, rows, strict=True):
        if not setting:
            raise DataError(f"{path} has no column {SETTING}; restore the file.")
        table.setdefault(setting, []).append(row)
    return table


def to_stored(table: Mapping[str, Iterable[Row]]) -> str:
    """Returns rows by setting as CSV, with the setting in the first column."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow((SETTING, *COLUMNS))
    for setting, rows in table.items():
        text.writelines(f"{setting},{line}\n" for line in to_csv(rows, header=False).splitlines())
    return text.getvalue()


def store(name: str, setting: str, folder: Path) -> None:
    """
    Stores an evaluation: its rows and searches take the place of what the setting had.

    Args:
        name (`str`): The L3RS, a folder of recipes/results; made if it is absent.
        setting (`str`): Name of the setting.
        folder (`Path`): Where the evaluation wrote `rows.csv` and `search.csv`.

    Raises:
        DataError: If a file cannot be read.
    """
    for file in (ROWS_NAME, SEARCH_NAME):
        table = read_stored(name, file) if (RESULTS / name / file).exists() else {}
        if (folder / file).exists():
            table[setting] = read_rows(folder / file)
            write_files(RESULTS / name, {file: to_stored(table).encode()})
