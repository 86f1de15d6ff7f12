"""Rows survive the disk, interruptions and other settings."""

import math

import datasets
import pytest
import torch

from hf_l3rs.errors import CheckpointError, DataError
from hf_l3rs.evaluation.baselines import Contender
from hf_l3rs.evaluation.store import (
    MANIFEST_NAME,
    Row,
    RowStore,
    Run,
    fingerprint,
    read_manifest,
    read_rows,
    to_csv,
    to_frame,
    write_rows,
)
from hf_l3rs.tasks.distribution import TaskSource
from hf_l3rs.tasks.pools import ImagePool
from tests.evaluation.rows import row
from tests.meta.problems import make_model, make_pool, make_tasks


def test_rows_are_a_data_set_that_survives_the_disk(tmp_path):
    rows = [row("L3RS", 0, 0.123456789), row("NA", 1, math.inf, rate=0.01), row("(0.9, 0.99)", 2, 1e-7)]
    write_rows(rows, tmp_path / "rows.csv")
    table = datasets.load_dataset("csv", data_files=str(tmp_path / "rows.csv"), split="train", cache_dir=str(tmp_path))
    assert table["loss"][:] == [0.123457, math.inf, 1e-7] and table["learning_rate"][:] == [None, 0.01, None]
    assert read_rows(tmp_path / "rows.csv") == rows
    frame = to_frame(rows)
    assert list(frame.optimizer) == ["L3RS", "NA", "(0.9, 0.99)"] and math.isnan(frame.learning_rate[0])
    assert to_frame([]).empty
    assert Row("Adam", 0.1, 0, 2, 2, math.nan, 0.3) == Row("Adam", 0.1, 0, 2, 2, math.inf, 0.0)


@pytest.mark.parametrize("cut", [1, 3, 8, 30, 31, 32, 39])
def test_half_a_last_line_is_dropped(cut, tmp_path):
    """Also where what is left of it could pass for a whole one."""
    rows = [row("Adam", 0, 0.25, rate=0.01), row("Adam", 1, 0.125, rate=0.01)]
    (tmp_path / "part.csv").write_text(to_csv(rows)[:-cut])
    kept = rows[:1] if cut <= len("Adam,0.01,1,10,10,0.125,0.9875\n") else []
    assert read_rows(tmp_path / "part.csv", whole=False) == kept


LINES = [
    b"Adam,0.1,0",
    b"Adam,0.1,0,2,2,0.5,0.5,7",
    *(b"Adam,0.1,%b,2,2,0.5,0.5" % task for task in (b"zero", b"0.5", b"", b"1" + b"0" * 30)),
    *(b"Adam,%b,0,2,2,0.5,0.5" % rate for rate in (b"\x00", b"fast")),
    *(b"Adam,0.1,0,2,2,%b,0.5" % loss for loss in (b"nan", b"-inf", b"", b"true")),
    *(b"Adam,0.1,0,2,2,0.5,%b" % accuracy for accuracy in (b"nan", b"50")),
]


@pytest.mark.parametrize(
    "content",
    [None, b"", b"nonsense\n1\n", b"\xff\xfe", *(to_csv([]).encode() + line + b"\n" for line in LINES)],
)
def test_a_file_of_something_else_is_refused_in_one_sentence(content, tmp_path):
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match="rows.csv") as error:
        read_rows(tmp_path / "rows.csv")
    assert "\n" not in str(error.value)


def make_runs(names=("Adam",), num_tasks=2, horizons=(2,), **identity):
    contenders = [Contender(name, None, 0.1, identity) for name in names]
    return [Run(each, task, steps) for steps in horizons for each in contenders for task in range(num_tasks)]


def rows_of(run):
    return [Row(*run.key, step, 1.0 / step, 0.5) for step in range(1, run.num_training_steps + 1)]


def finish(store, runs):
    store.open(runs)
    for run in runs:
        store.append(rows_of(run))
    store.close([row for run in runs for row in rows_of(run)])


def test_rows_are_on_disk_as_soon_as_their_run_is_finished(tmp_path):
    runs = make_runs(num_tasks=3)
    store = RowStore(tmp_path / "rows.csv", {"seed": 1})
    assert store.open(runs) == []
    store.append(rows_of(runs[1]))
    store.append(rows_of(runs[0]))
    again = RowStore(tmp_path / "rows.csv", {"seed": 1})
    assert set(again.open(runs)) == {*rows_of(runs[0]), *rows_of(runs[1])}
    again.append(rows_of(runs[2])[:1])  # without its end, so it runs again
    assert len(RowStore(tmp_path / "rows.csv", {"seed": 1}).open(runs)) == len(rows_of(runs[0])) * 2
    again.append(rows_of(runs[2]))
    everything = [row for run in runs for row in rows_of(run)]
    again.close(everything)
    assert read_rows(tmp_path / "rows.csv") == everything
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "rows.csv"]


def test_parts_that_outlived_their_table_count_once(tmp_path):
    """A process may be killed after it wrote the table, and before it removed the parts."""
    runs = make_runs()
    finish(RowStore(tmp_path / "rows.csv", {}), runs)
    store = RowStore(tmp_path / "rows.csv", {})
    store.append(rows_of(runs[0]))
    before = read_rows(tmp_path / "rows.csv")
    assert store.open(runs) == before
    store.close(before)
    assert read_rows(tmp_path / "rows.csv") == before and not store.parts.exists()


@pytest.mark.parametrize("is_finished", [True, False])
def test_other_settings_are_named(tmp_path, is_finished):
    settings = {"seed": 1, "datasets": [{"path": "a"}], "kind": torch.float32, "pair": (1, 2)}
    store = RowStore(tmp_path / "rows.csv", settings)
    if is_finished:
        finish(store, make_runs())
    else:
        store.open(make_runs())
        store.append(rows_of(make_runs()[0]))
    RowStore(tmp_path / "rows.csv", settings).open(make_runs())
    changed = {**settings, "seed": 2, "datasets": [{"path": "b"}], "pair": (1, 3), "x": 1, "y": 2}
    with pytest.raises(CheckpointError) as error:
        RowStore(tmp_path / "rows.csv", changed, remedy="name another output_dir").open(make_runs())
    words = ("seed was 1, now 2", 'datasets[0].path was "a", now "b"', "pair was [1, 2]", "2 more", "another output_")
    assert all(each in str(error.value) for each in words)
    (tmp_path / "rows.csv").unlink(missing_ok=True)
    if is_finished:  # a table that was removed may be measured with other settings
        RowStore(tmp_path / "rows.csv", changed).open(make_runs())


def test_an_optimizer_of_the_same_name_must_be_the_same(tmp_path):
    finish(RowStore(tmp_path / "search.csv", {}), make_runs(betas=(0.9, 0.99)))
    RowStore(tmp_path / "search.csv", {}).open(make_runs(["SGD"], momentum=0.9))
    with pytest.raises(CheckpointError, match=r"Adam.betas was \[0.9, 0.99\], now \[0.8, 0.99\]"):
        RowStore(tmp_path / "search.csv", {}).open(make_runs(betas=(0.8, 0.99)))


def test_the_fingerprint_is_of_images_labels_and_weights():
    same = fingerprint(make_tasks(), 7)
    assert same == fingerprint(make_tasks(), 7)
    pool = make_pool()
    darker = ImagePool(pool.pixel_values - 1, *pool[1:])
    relabelled = ImagePool(pool.pixel_values, pool.labels.roll(1), pool.class_names)
    others = [
        fingerprint(make_tasks(), 8),
        fingerprint(make_tasks(model=make_model(seed=1)), 7),
        fingerprint(make_tasks(seed=1), 7),
        *(
            fingerprint(make_tasks(sources=[TaskSource("blobs", *pools)]), 7)
            for pools in ((darker, make_pool(seed=1)), (relabelled, make_pool(seed=1)), (pool, darker))
        ),
    ]
    assert same == fingerprint(make_tasks(sources=[TaskSource("another name", pool, make_pool(seed=1))]), 7)
    assert len({same, *others}) == 1 + len(others)
    assert fingerprint(make_tasks(model=make_model().to(torch.bfloat16)), 7) != same


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"3", b'{"rows.csv": 3}', b'{"rows.csv": {}}', b"\xff"])
def test_a_damaged_manifest_is_refused_in_one_sentence(content, tmp_path):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match="manifest.json") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)
