"""An evaluation from its settings to its tables, through kills, other settings and diverged runs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from hf_l3rs.errors import ArtifactError, CheckpointError, ConfigError, DataError
from hf_l3rs.evaluation import benchmark, job as job_module
from hf_l3rs.evaluation.store import MANIFEST_NAME, read_rows
from hf_l3rs.hub.artifact import load_network, save_network
from hf_l3rs.hub.results import read_results
from tests.evaluation.evaluate_tiny import make_inputs, make_job


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
RESULTS = ("rows.csv", "search.csv", "results.json", "summary.md", "manifest.json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """The folder of an evaluation that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    make_job(inputs, folder).run("measure it")
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def launch(*arguments, processes=1):
    command = [sys.executable, *(TORCHRUN if processes > 1 else []), "-m", "tests.evaluation.evaluate_tiny"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_finished_job(finished, inputs):
    assert {path.name for path in finished.iterdir()} == {*RESULTS, "curves.png"}
    names = ["SGD constant", "Adam cosine", "L3RS", "L3RS, untrained"]
    expected = [(name, task, k, step) for k in (2, 3) for name in names for task in (0, 1) for step in range(k + 1)]
    rows = read_rows(finished / "rows.csv")
    assert [(row.optimizer, row.task, row.num_training_steps, row.step) for row in rows] == expected
    entries = read_results(finished / "results.json").entries
    assert [(entry.optimizer, entry.num_training_steps, entry.command) for entry in entries] == [
        (name, steps, "measure it") for steps in (2, 3) for name in names[2:]
    ]
    assert all(entry.verdict in ("ahead", "level", "behind") for entry in entries)
    summary = (finished / "summary.md").read_text()
    assert "| L3RS, untrained |" in summary and "After 2 steps L3RS is " in summary
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["search.csv"]["optimizers"]["Adam cosine"]["betas"] == [0.9, 0.999]
    assert manifest["rows.csv"]["optimizers"]["L3RS"]["fingerprint"] == load_network(inputs / "l3rs").fingerprint()
    settings = manifest["rows.csv"]["settings"]
    assert settings["versions"]["torch"] == torch.__version__ and settings["base_model"] == str(inputs / "base")


def test_runs_are_on_one_thread(inputs, tmp_path, monkeypatch):
    before, seen = torch.get_num_threads(), []

    def spying(*args):
        seen.append(torch.get_num_threads())
        raise DataError("no")

    monkeypatch.setattr(benchmark, "run_one", spying)
    torch.set_num_threads(2)
    try:
        with pytest.raises(DataError):
            make_job(inputs, tmp_path).run()
        assert torch.get_num_threads() == 2 and seen == [1]
    finally:
        torch.set_num_threads(before)


def test_the_probe_and_ones_own_take_part(inputs, tmp_path):
    names = ["Linear probe", "LP-FT", "torch.optim.RAdam"]
    make_job(inputs, tmp_path, baselines=names, horizons=[2]).run()
    rows = read_rows(tmp_path / "rows.csv")
    assert {row.optimizer for row in rows} == {*names, "L3RS", "L3RS, untrained"}
    assert [row.step for row in rows if row.optimizer == "Linear probe"] == [2, 2]
    assert {row.optimizer for row in read_rows(tmp_path / "search.csv")} == {"LP-FT", "torch.optim.RAdam"}


def test_what_meta_training_cost_is_told_and_checked_at_once(inputs, tmp_path, finished):
    job = make_job(inputs, tmp_path / "out", l3rs=with_record(inputs, tmp_path, cost_in_plain_steps=4321.4))
    better = {"L3RS": 0.01, "L3RS, untrained": 9.0}
    rows = [replace(row, loss=better.get(row.optimizer, row.loss)) for row in read_rows(finished / "rows.csv")]
    assert "worth 4,321 plain steps, is paid back after" in job.report(rows)
    with pytest.raises(ArtifactError, match="meta-training cost"):
        make_job(inputs, tmp_path / "out", l3rs=with_record(inputs, tmp_path, cost_in_plain_steps="much"))


@pytest.mark.distributed
def test_rows_do_not_depend_on_processes_or_kills(inputs, finished, tmp_path):
    """Two are killed in the search, one is in the comparison, and two finish: the rows of an uninterrupted job."""
    for name, processes, num_runs in (("search", 2, 12), ("rows", 1, 9)):
        dead = launch(inputs, tmp_path, f"{name}.csv", num_runs, processes=processes)
        assert dead.returncode != 0 and not (tmp_path / f"{name}.csv").exists()
        parts = [part.read_bytes() for part in tmp_path.glob(f"{name}.parts/*.csv")]
        assert parts and not all(part.endswith(b"\n") for part in parts), dead.stderr
    done = launch(inputs, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.parts"))
    assert contents(tmp_path) == contents(finished)


def test_a_finished_job_measures_nothing_again(copy, inputs, monkeypatch):
    def state():
        return contents(copy), [(copy / name).stat().st_mtime_ns for name in ("rows.csv", "search.csv", MANIFEST_NAME)]

    before = state()
    monkeypatch.setattr(benchmark, "run_one", None)
    make_job(inputs, copy).run("measure it")
    assert state() == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tasks": {"batch_size": 5}}, "batch_size was 4, now 5"),
        ({"dataset": {"classes": ["ant", "bee", "cow"], "batches_split": "train[:95%]"}}, "batches_split"),
        ({"model": {"trainable": "last:1"}}, 'trainable was "all", now "last:1"'),
    ],
)
def test_a_search_made_with_other_settings_is_never_used(copy, inputs, changes, words):
    (copy / "rows.csv").unlink()  # the search alone
    before = (copy / "search.csv").read_bytes()
    with pytest.raises(CheckpointError, match=f"search.csv was measured with other settings .*{words}") as error:
        make_job(inputs, copy, **changes).run()
    assert "name another output_dir" in str(error.value) and "\n" not in str(error.value)
    assert (copy / "search.csv").read_bytes() == before


def test_other_images_under_the_same_names_are_noticed(inputs, tmp_path):
    twin = shutil.copytree(inputs, tmp_path / "twin")
    small = {"baselines": ["Linear probe"], "horizons": [2], "num_tasks": 1}
    make_job(twin, tmp_path / "out", **small).run()
    for path in (twin / "images/train/ant").glob("*.png"):
        shutil.copy(twin / "images/train/dog" / path.name, path)
    with pytest.raises(CheckpointError, match="images_and_weights was"):
        make_job(twin, tmp_path / "out", **small).run()


def test_another_l3rs_uses_the_search_but_not_the_rows(copy, inputs, tmp_path):
    network = load_network(inputs / "l3rs")
    network.load_vector(network.to_vector() + 0.01)
    save_network(network, tmp_path / "other")
    search = (copy / "search.csv").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match=r"L3RS.fingerprint was .*search_dir .*copy makes it use the search"):
        make_job(inputs, copy, l3rs=str(tmp_path / "other")).run()
    make_job(inputs, tmp_path / "new", l3rs=str(tmp_path / "other"), search_dir=str(copy)).run()
    assert (copy / "search.csv").stat().st_mtime_ns == search and not (tmp_path / "new/search.csv").exists()
    old, new = read_rows(copy / "rows.csv"), read_rows(tmp_path / "new/rows.csv")
    assert [row for row in old if row.optimizer != "L3RS"] == [row for row in new if row.optimizer != "L3RS"]
    assert old != new


def test_more_tasks_measure_only_what_is_missing(copy, inputs, tmp_path, monkeypatch):
    measured, real = [], benchmark.run_one

    def watched(model, tasks, seed, run, *rest):
        measured.append(run.key)
        return real(model, tasks, seed, run, *rest)

    monkeypatch.setattr(benchmark, "run_one", watched)
    make_job(inputs, copy, num_tasks=3).run("measure it")
    assert {key[2] for key in measured} == {2}
    make_job(inputs, tmp_path / "whole", num_tasks=3).run("measure it")
    assert (tmp_path / "whole/rows.csv").read_bytes() == (copy / "rows.csv").read_bytes()
    assert {row.task for row in make_job(inputs, copy).compare(read_rows(copy / "search.csv"))} == {0, 1}
    assert {row.task for row in read_rows(copy / "rows.csv")} == {0, 1, 2}


def test_rows_that_nobody_knows_about_are_refused(copy, inputs):
    (copy / MANIFEST_NAME).unlink()
    with pytest.raises(CheckpointError, match="rows.csv has no entry"):
        make_job(inputs, copy).run()


def with_record(inputs, folder, **meta_training):
    """Saves the L3RS with another record of its meta-training."""
    network = load_network(inputs / "l3rs")
    network.config = network.config.replace(meta_training=meta_training)
    save_network(network, folder / "l3rs")
    return str(folder / "l3rs")


def test_images_that_meta_training_saw_are_refused(inputs, tmp_path, monkeypatch):
    def refuse(seen, task_args, seed):
        assert (seen, task_args.num_classes, seed) == ([{"path": "x"}], 3, 1000)
        raise DataError("meta-training saw them")

    monkeypatch.setattr(job_module, "check_unseen", refuse)
    with pytest.raises(DataError, match="meta-training saw them"):
        make_job(inputs, tmp_path / "out", l3rs=with_record(inputs, tmp_path, data=[{"path": "x"}]))


def test_a_search_that_others_share_grows_and_loses_nothing(copy, inputs, tmp_path):
    more = {"baselines": ["Adam cosine", "AdamW linear"], "horizons": [2, 4], "search_dir": str(copy)}
    before = read_rows(copy / "search.csv")
    make_job(inputs, tmp_path / "more", **more).run()
    after = read_rows(copy / "search.csv")
    assert set(before) < set(after)
    assert {(row.optimizer, row.num_training_steps) for row in set(after) - set(before)} == {
        *(("AdamW linear", steps) for steps in (2, 4)),
        ("Adam cosine", 4),
    }
    section = json.loads((copy / "manifest.json").read_text())["search.csv"]
    assert list(section["optimizers"]) == ["SGD constant", "Adam cosine", "AdamW linear"]
    make_job(inputs, copy).run("measure it")  # the first comparison is as it was


def test_every_optimizer_trains_the_same_layers(inputs, tmp_path, monkeypatch):
    names = ["Adam constant", "SGD cosine", "Muon linear"]
    job = make_job(inputs, tmp_path, model={"trainable": "last:1"}, baselines=names)
    builds = [baseline.at(1e-3).build for baseline in job.baselines] + [each.build for each in job.contenders]
    trained = [
        {id(parameter) for group in build(job.model, 2)[0].param_groups for parameter in group["params"]}
        for build in builds
    ]
    of_model = {id(parameter) for parameter in job.model.parameters() if parameter.requires_grad}
    assert 2 < len(of_model) < len(list(job.model.parameters()))
    assert all(own == of_model for own in (*trained[:2], *trained[3:]))
    assert len(trained[2]) == len(of_model)  # Muon has matrices of its own, in the same memory


def test_an_evaluation_is_of_one_model(inputs, tmp_path):
    with pytest.raises(ConfigError, match="of one base model"):
        make_job(inputs, tmp_path, model={"more_base_models": [str(inputs / "base")]})
