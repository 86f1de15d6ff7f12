import math

import datasets
import pytest

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.rows import Row, read_rows, to_csv, to_frame, write_rows
from tests.evaluation.rows import row


def test_rows_survive_the_disk(tmp_path):
    rows = [row("L3RS", 0, 0.125), row("Adam", 1, math.inf, rate=0.01)]
    write_rows(rows, tmp_path / "rows.csv")
    assert read_rows(tmp_path / "rows.csv") == [rows[0], Row("Adam", 0.01, 1, 10, 10, math.inf, -math.inf)]
    (tmp_path / "rows.csv").write_text("nonsense\n1\n")
    with pytest.raises(DataError, match="does not hold the rows"):
        read_rows(tmp_path / "rows.csv")


def test_rows_are_a_data_set(tmp_path):
    rows = [row("L3RS", 0, 0.123456789), row("NA", 1, math.inf, rate=0.01), row("(0.9, 0.99)", 2, 1e-7)]
    write_rows(rows, tmp_path / "rows.csv")
    table = datasets.load_dataset("csv", data_files=str(tmp_path / "rows.csv"), split="train", cache_dir=str(tmp_path))
    assert table["loss"][:] == [0.123457, math.inf, 1e-7] and table["learning_rate"][:] == [None, 0.01, None]
    assert read_rows(tmp_path / "rows.csv") == rows
    frame = to_frame(rows)
    assert list(frame.optimizer) == ["L3RS", "NA", "(0.9, 0.99)"] and math.isnan(frame.learning_rate[0])
    assert to_frame([]).empty


def test_what_is_not_a_number_is_infinite():
    assert Row("Adam", 0.1, 0, 2, 2, math.nan, 0.3) == Row("Adam", 0.1, 0, 2, 2, math.inf, 0.0)


@pytest.mark.parametrize("cut", range(1, 40))
def test_half_a_last_line_is_dropped(cut, tmp_path):
    """Also where what is left of it could pass for a whole one."""
    rows = [row("Adam", 0, 0.25, rate=0.01), row("Adam", 1, 0.125, rate=0.01)]
    text = to_csv(rows)
    (tmp_path / "part.csv").write_text(text[:-cut])
    kept = rows[:1] if cut <= len("Adam,0.01,1,10,10,0.125,0.9875\n") else []
    assert read_rows(tmp_path / "part.csv", whole=False) == kept


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense\n1\n",
        b"\xff\xfe",
        to_csv([]).encode() + b"Adam,0.1,0\n",
        to_csv([]).encode() + b"Adam,0.1,0,2,2,0.5,0.5,7\n",
        to_csv([]).encode() + b"Adam,0.1,zero,2,2,0.5,0.5\n",
        to_csv([]).encode() + b"Adam,\x00,0,2,2,0.5,0.5\n",
        None,
    ],
)
def test_a_file_of_something_else_is_refused_in_one_sentence(content, tmp_path):
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match="does not hold the rows of a benchmark") as error:
        read_rows(tmp_path / "rows.csv")
    assert "\n" not in str(error.value)
