"""The recipes as their user runs them: help, demo, benchmarks, the choice of a setting, a release."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.evaluation.store import read_rows
from hf_l3rs.hub.artifact import PICTURE_NAME, RELEASED, load_network, save_network
from hf_l3rs.hub.results import Result, Results, read_results, write_results
from recipes import benchmark_meta_training as benchmark, benchmark_step, demo, release, select_setting, trajectories
from recipes.evidence.stored import read_stored
from tests.meta.problems import make_network


RECIPES = Path(__file__).parents[2] / "recipes"
FILES = [*RECIPES.glob("*.py"), *RECIPES.glob("*/build*.py"), RECIPES / "space/bundle.py"]
NAMES = sorted(".".join(path.relative_to(RECIPES.parent).with_suffix("").parts) for path in FILES)


@pytest.mark.parametrize("name", NAMES)
def test_help_renders(name, monkeypatch, capsys, tmp_path):
    """And says what the recipe does; a bare % would break it. Nothing is written."""
    recipe = importlib.import_module(name)
    monkeypatch.setattr("sys.argv", [f"{name.rpartition('.')[2]}.py", "--help"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        recipe.main()
    output = capsys.readouterr().out
    assert exit.value.code == 0 and output.startswith("usage:") and not list(tmp_path.iterdir())
    first = recipe.__doc__.strip().split("\n")[0]
    assert " ".join(first.split()[:4]) in " ".join(output.split())


def finals(rows):
    return {(row.optimizer, row.task, row.num_training_steps): row.loss for row in rows if row.is_final}


def test_the_demo_at_small_size(tmp_path, capsys, monkeypatch):
    """In this process and beside one Adam, as loading everything in another takes longer than the runs."""
    executor = lambda workers, context, **options: ThreadPoolExecutor(workers, **options)  # noqa: E731
    monkeypatch.setattr(demo, "ProcessPoolExecutor", executor)
    monkeypatch.setattr(demo, "ADAMS", demo.ADAMS[:1])
    table = demo.main(["--num_tasks=1", "--horizons=10", "--num_workers=1", f"--output_dir={tmp_path}"])
    assert "| 10 | L3RS | none |" in table and table in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "rows.csv"}
    # what the stock Trainer gives is what the evaluation measured, for L3RS and for Adam
    measured = finals(read_stored("l3rs-resnet-tiny-fashion")["in_domain"])
    for key, loss in finals(read_rows(tmp_path / "rows.csv")).items():
        assert loss == pytest.approx(measured[key], rel=0.01)


def test_the_cost_of_a_step(capsys):
    rows = {row.optimizer: row for row in benchmark_step.main(["--models", "resnet-tiny", "--rounds", "2"])}
    assert rows["Adam (foreach)"].ratio == 1 and all(row.milliseconds > 0 for row in rows.values())
    assert rows["SGD momentum (foreach)"].bytes_per_parameter == 4
    assert 8 < rows["L3RS"].bytes_per_parameter < 8.2  # as Adam's, and a few numbers a layer
    output = capsys.readouterr().out
    assert all(f"| resnet-tiny | {name} |" in output for name in (*rows, "L3RS", "L3RS with Muon"))


@pytest.mark.slow
def test_the_cost_of_meta_training(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "launch", lambda count, arguments: 10.0 * count**0.9)
    rows = benchmark.main(["--rounds", "1", "--steps", "2", "--launches", "2"])
    assert [row.section for row in rows] == ["rollout"] * 2 + ["gradient"] * 3 + ["processes"] * 2
    assert [rows[index].ratio for index in (0, 2, 5)] == [1.0] * 3 and rows[6].ratio == pytest.approx(2**0.9)
    assert "| gradient | second order |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.distributed
def test_the_cost_in_two_processes():
    """The launched recipe must also end well."""
    options = ["--generations", "1", "--pairs", "2", "--steps", "2"]
    assert benchmark.launch(2, benchmark.parse_arguments(options)) > 0


CONFIG = "recipes/configs/resnet_tiny_fashion.yaml"


def test_the_value_with_the_lowest_loss_is_saved(tmp_path, monkeypatch):
    setting, values = "adam_betas", ((0.9, 0.99), (0.6, 0.9))
    monkeypatch.setitem(select_setting.VALUES, setting, values)
    options = ["--lengths=2", "--num_validation_runs=2", "--evaluation_size=50", f"--output_dir={tmp_path}"]
    best = select_setting.main([CONFIG, f"--select={setting}", *options])
    losses = {}
    for row in read_rows(tmp_path / f"{setting}.csv"):
        losses.setdefault(row.optimizer, []).append(row.loss)
    folders = (RELEASED / "l3rs-resnet-tiny-fashion", tmp_path / "l3rs")
    start, config = (load_network(folder).config for folder in folders)
    assert list(losses) == [str(value) for value in (*values, getattr(start, setting))]
    assert str(best) == min(losses, key=lambda name: sum(losses[name])) and getattr(config, setting) == best
    names = ("inner_steps", "cost_in_plain_steps")
    added = [config.meta_training[name] - start.meta_training[name] for name in names]
    assert added == [12, 12]  # two values and its own, two runs each, of two steps


@pytest.mark.parametrize("recipe", [select_setting, trajectories])
def test_several_models_are_refused(recipe):
    with pytest.raises(ConfigError, match="more_base_models"):
        recipe.main([CONFIG, "--more_base_models", "other"])


def results(network, *names):
    sizes = {"num_training_steps": 10, "num_tasks": 2, "loss": 0.5, "command": "measure it"}
    return Results(network.fingerprint(), tuple(Result(name, "org/data", "test", **sizes) for name in names))


def test_a_release_holds_what_was_measured_with_it_each_measurement_once(tmp_path):
    network = make_network(trained=True)
    save_network(network, tmp_path / "l3rs")
    for name in ("one", "two"):
        write_results(results(network, "L3RS", "L3RS, untrained"), tmp_path / name)
    write_results(results(make_network(), "L3RS"), tmp_path / "other.json")
    (tmp_path / PICTURE_NAME).write_bytes(b"picture")

    def add(*files):
        options = ["--l3rs", str(tmp_path / "l3rs"), "--results", *(str(tmp_path / file) for file in files)]
        release.main(["release", *options], tmp_path, tmp_path / "cards")

    with pytest.raises(ArtifactError, match="measured with meta-weights"):
        add("other.json")
    assert not (tmp_path / "release").exists()
    add("one", "two")
    assert (tmp_path / "cards/release" / PICTURE_NAME).read_bytes() == b"picture"
    card = (tmp_path / "cards/release/README.md").read_text()
    assert f"]({PICTURE_NAME})" in card and "| data |" in card
    assert load_network(tmp_path / "release").fingerprint() == network.fingerprint()
    assert read_results(tmp_path / "release/results.json") == results(network, "L3RS", "L3RS, untrained")
