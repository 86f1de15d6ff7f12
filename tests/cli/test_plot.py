"""Pictures again from stored rows; that of an evaluation is tested with it."""

import json
from pathlib import Path

import pytest

from hf_l3rs.cli.plot import METRICS, draw_again
from hf_l3rs.evaluation.plots import is_picture_of
from hf_l3rs.evaluation.rows import Row, write_rows
from hf_l3rs.meta.run_folder import METRICS_NAME


RESULTS = Path(__file__).parents[2] / "recipes/results/l3rs-resnet-tiny-fashion"


def test_the_title_is_that_of_the_evaluation_or_else_of_the_folder(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "hf_l3rs.evaluation.plots.plot_learning_curves", lambda rows, path, title: titles.append(title)
    )
    write_rows([Row("L3RS", None, 0, 2, 2, 0.5, 0.9)], tmp_path / "rows.csv")
    draw_again(tmp_path, tmp_path)
    (tmp_path / "summary.md").write_text("# ResNet, fine-tuned\n\n| steps |\n")
    draw_again(tmp_path, tmp_path)
    draw_again(tmp_path, tmp_path, "Mine")
    assert titles == [tmp_path.name, "ResNet, fine-tuned", "Mine"]


def test_trajectories_are_drawn_too(run, tmp_path):
    pytest.importorskip("matplotlib")
    status, out, _ = run("plot", RESULTS, "--output", tmp_path)
    assert (status, out) == (0, f"{tmp_path}/trajectories.png\n") and (tmp_path / "trajectories.png").stat().st_size


def test_a_meta_training_is_drawn_from_its_folder_or_its_metrics_also_while_it_runs(run, tmp_path):
    pytest.importorskip("matplotlib")
    assert METRICS == METRICS_NAME
    lines = [{"generation": number, "validation_loss": 1 / number} for number in (1, 2, 3)]
    metrics = "\n".join(map(json.dumps, lines)).encode() + b'\n{"generation": 4, "validat'
    (tmp_path / METRICS_NAME).write_bytes(metrics)
    status, out, _ = run("plot", tmp_path)
    assert (status, out) == (0, f"{tmp_path}/curve.png\n") and is_picture_of(tmp_path / "curve.png", metrics)
    status, out, _ = run("plot", tmp_path / METRICS_NAME, "--output", tmp_path / "again", "--title", "Mine", "--json")
    assert status == 0 and json.loads(out) == {"pictures": [f"{tmp_path}/again/curve.png"]}
    assert is_picture_of(tmp_path / "again/curve.png", metrics)


def test_metrics_without_a_validation_are_no_picture(run, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / METRICS_NAME).write_text('{"generation": 1, "meta_loss": 0.5}\n')
    status, out, err = run("plot", tmp_path)
    assert (status, out) == (1, "") and "has no generation that was validated" in err
    write_rows([Row("L3RS", None, 0, 2, 2, 0.5, 0.9)], tmp_path / "rows.csv")  # as beside each variation of ablations
    status, out, _ = run("plot", tmp_path)
    assert (status, out) == (0, f"{tmp_path}/curves.png\n")


def test_without_matplotlib_it_says_how_to_have_it(run, tmp_path, monkeypatch):
    def missing():
        raise ImportError("Pictures need matplotlib; install it with `pip install hf_l3rs[plots]`.")

    monkeypatch.setattr("hf_l3rs.evaluation.plots.pyplot", missing)
    write_rows([Row("L3RS", None, 0, 2, 2, 0.5, 0.9)], tmp_path / "rows.csv")
    status, out, err = run("plot", tmp_path)
    assert (status, out) == (1, "") and "pip install hf_l3rs[plots]" in err and err.count("\n") == 1
