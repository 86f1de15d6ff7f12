"""An L3RS and Adam on somebody's own model and data, paired."""

import json

from hf_l3rs.evaluation.store import read_rows


def test_everybody_runs_on_the_same_seeds(run, inputs, tmp_path):
    options = ["--model", inputs / "base", "--data", inputs / "images", "--steps", "2", "--seeds", "2"]
    options += ["--search_seeds", "1", "--batch_size", "4", "--output_dir", tmp_path]
    status, out, _ = run("compare", inputs / "l3rs", *options, "--json")
    data = json.loads(out)
    assert status == 0 and [entry["optimizer"] for entry in data["results"]] == ["L3RS", "L3RS, untrained"]
    assert data["results"][0]["command"].startswith(f"hf-l3rs compare {inputs}/l3rs --model {inputs}/base")
    rows = read_rows(tmp_path / "rows.csv")
    runs = {name: {row.task for row in rows if row.optimizer == name} for name in {row.optimizer for row in rows}}
    assert runs == {name: {0, 1} for name in ("L3RS", "L3RS, untrained", "Adam at 1e-3", "Adam constant")}
    assert (tmp_path / "curves.png").exists()
    status, out, _ = run("compare", inputs / "l3rs", *options)
    assert status == 0 and "| 2 | L3RS |" in out and str(tmp_path) in out


def test_without_a_search_there_is_no_tuned_adam(run, inputs, tmp_path):
    options = ["--model", inputs / "base", "--data", inputs / "images", "--steps", "2", "--seeds", "1"]
    options += ["--search_seeds", "0", "--batch_size", "4", "--output_dir", tmp_path]
    assert run("compare", inputs / "l3rs", *options)[0] == 0
    assert {row.optimizer for row in read_rows(tmp_path / "rows.csv")} == {"L3RS", "L3RS, untrained", "Adam at 1e-3"}
