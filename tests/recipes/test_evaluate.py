"""The recipe as its user runs it, and that stored rows are what the settings files measure."""

from pathlib import Path

import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import find_baseline
from hf_l3rs.evaluation.store import read_rows
from recipes import evaluate
from recipes.evidence import stored
from recipes.evidence.experiment import SETTINGS, read_experiment
from tests.evaluation.evaluate_tiny import make_inputs


CONFIGS = Path("recipes/configs")
SETTINGS_FILE = """
base_model: {inputs}/base
num_classes: 3
batch_size: 4
evaluation:
  l3rs: {inputs}/l3rs
  datasets: [{inputs}/images]
  evaluation_size: 12
  baselines: [Adam at 1e-3]
  horizons: [1, 2]
  num_tasks: 2
  num_search_tasks: 1
  output_dir: {output}
  cells:
    in_domain:
    other_initialisation: {{batch_size: 5}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SETTINGS_FILE.format(inputs=make_inputs(tmp_path / "inputs"), output=tmp_path / "output"))
    return path


def test_all_cells_by_one_command_which_goes_on_and_stores(file, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "RESULTS", tmp_path / "results")
    output = tmp_path / "output"
    text = evaluate.main([str(file), "--only", "in_domain"])
    assert "## A. l3rs, in domain\n\n| steps |" in text
    first = (output / "in_domain/rows.csv").read_bytes()
    text = evaluate.main([str(file), "--store", "true"])
    assert (output / "in_domain/rows.csv").read_bytes() == first
    assert text.index("## A. l3rs, in domain") < text.index("## B. l3rs, other initialisation")
    assert (output / "other_initialisation/rows.csv").read_bytes() != first
    for name in ("in_domain", "other_initialisation"):
        results = (output / name / "results.json").read_text()
        assert SETTINGS[name] in results and "python -m recipes.evaluate" in results
        assert stored.read_stored("l3rs")[name] == read_rows(output / name / "rows.csv")


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("in_domain:", "nowhere:", [], "cells must be any of in_domain"),
        ("in_domain:", "in_domain: 3", [], "cells must be any of in_domain"),
        ("evaluation:", "meta_training: {a: 1}\nevaluation:", [], "meta_training must be a list of stages"),
        ("horizons:", "horizon:", [], "horizon"),
        ("evaluation:", "evaluated:", [], "no evaluation with cells"),
        ("in_domain:", "in_domain:", ["--only", "nowhere"], "Unknown cells nowhere; .* has in_domain, other"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(file, tmp_path, old, new, options, message):
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        evaluate.main([str(file), *options])
    assert not (tmp_path / "output").exists()
    with pytest.raises(SystemExit):
        evaluate.main([])


@pytest.mark.parametrize("name", sorted(path.name for path in stored.RESULTS.iterdir() if path.is_dir()))
def test_what_is_stored_is_what_the_settings_file_measures(name):
    """Some rows of a part of the model, or of many passes, were measured by an earlier version."""
    cells = read_experiment(str(CONFIGS / f"{name.removeprefix('l3rs-').replace('-', '_')}.yaml")).cells
    table = {setting: rows for setting, rows in stored.read_stored(name).items() if setting in SETTINGS}
    table.pop("random_initialisation", None)  # measured once; README of the recipes says how
    assert set(cells) == set(table)
    for setting, rows in table.items():
        names = {name for name in stored.rivals_in(rows) if "head only" not in name}
        names -= {"Adam constant, head 10x", "Adam linear, head 10x"}
        assert {find_baseline(name).name for name in cells[setting]["baselines"]} == names
        assert {row.num_training_steps for row in rows} == set(cells[setting]["horizons"])
        assert len({row.task for row in rows}) == cells[setting]["num_tasks"]
