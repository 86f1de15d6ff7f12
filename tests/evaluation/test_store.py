import pytest

from hf_l3rs.errors import CheckpointError, DataError, StorageError
from hf_l3rs.evaluation.baselines import Contender
from hf_l3rs.evaluation.rows import Row, Run, read_rows
from hf_l3rs.evaluation.store import RowStore


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
    again.append(rows_of(runs[2]))
    everything = [row for run in runs for row in rows_of(run)]
    again.close(everything)
    assert read_rows(tmp_path / "rows.csv") == everything
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "rows.csv"]


def test_a_run_without_its_end_runs_again(tmp_path):
    (run,) = make_runs(num_tasks=1, horizons=(3,))
    store = RowStore(tmp_path / "rows.csv", {})
    store.open([run])
    store.append(rows_of(run)[:2])
    assert RowStore(tmp_path / "rows.csv", {}).open([run]) == []


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


def test_other_settings_are_named(tmp_path):
    finish(RowStore(tmp_path / "rows.csv", {"seed": 1, "datasets": [{"path": "a"}]}), make_runs())
    settings = {"seed": 2, "datasets": [{"path": "b"}], "x": 1, "y": 2}
    store = RowStore(tmp_path / "rows.csv", settings, remedy="name another output_dir")
    with pytest.raises(CheckpointError) as error:
        store.open(make_runs())
    assert str(error.value) == (
        f'{tmp_path}/rows.csv was measured with other settings (seed was 1, now 2; datasets[0].path was "a", now '
        '"b"; x was null, now 1; and 1 more); restore them, or name another output_dir.'
    )


def test_an_interrupted_table_is_as_safe_as_a_finished_one(tmp_path):
    store = RowStore(tmp_path / "rows.csv", {"seed": 1})
    store.open(make_runs())
    store.append(rows_of(make_runs()[0]))
    with pytest.raises(CheckpointError, match="seed was 1, now 2"):
        RowStore(tmp_path / "rows.csv", {"seed": 2}).open(make_runs())


def test_an_optimizer_of_the_same_name_must_be_the_same(tmp_path):
    finish(RowStore(tmp_path / "search.csv", {}, shared=True), make_runs(betas=(0.9, 0.99)))
    RowStore(tmp_path / "search.csv", {}, shared=True).open(make_runs(["SGD"], momentum=0.9))
    with pytest.raises(CheckpointError, match=r"Adam.betas was \[0.9, 0.99\], now \[0.8, 0.99\]"):
        RowStore(tmp_path / "search.csv", {}, shared=True).open(make_runs(betas=(0.8, 0.99)))


def test_only_a_shared_table_holds_more_than_was_asked_for(tmp_path):
    few, many = make_runs(), make_runs(["Adam", "SGD"], horizons=(2, 3))
    for shared in (True, False):
        file = tmp_path / str(shared) / "rows.csv"
        finish(RowStore(file, {}, shared), many)
        if shared:
            store = RowStore(file, {}, shared)
            assert len(store.open(few)) == len(read_rows(file)) == sum(len(rows_of(run)) for run in many)
            store.close([row for run in few for row in rows_of(run)])
            assert store.open(many) == [row for run in many for row in rows_of(run)]
        else:
            with pytest.raises(
                CheckpointError, match="holds 6 runs that are not asked for, such as Adam on task 0 for 3"
            ):
                RowStore(file, {}).open(few)


def test_a_table_that_was_removed_may_be_measured_with_other_settings(tmp_path):
    finish(RowStore(tmp_path / "rows.csv", {"seed": 1}), make_runs())
    (tmp_path / "rows.csv").unlink()
    finish(RowStore(tmp_path / "rows.csv", {"seed": 2}), make_runs())
    RowStore(tmp_path / "rows.csv", {"seed": 2}).open(make_runs())


def test_what_cannot_be_read_or_written_is_one_sentence(tmp_path):
    finish(RowStore(tmp_path / "rows.csv", {}), make_runs())
    (tmp_path / "rows.csv").write_text("nonsense\n1\n")
    with pytest.raises(DataError, match="does not hold the rows"):
        RowStore(tmp_path / "rows.csv", {}).open(make_runs())
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        RowStore(tmp_path / "file" / "rows.csv", {}).open(make_runs())
