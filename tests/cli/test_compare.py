"""An L3RS and its rivals on somebody's own model and data, paired."""

import pytest

from hf_l3rs.cli.compare import TUNED, UNTUNED
from hf_l3rs.evaluation.store import read_rows
from hf_l3rs.hub.results import read_results


@pytest.fixture
def compare(run, inputs, tmp_path):
    def compare(*options, l3rs=inputs / "l3rs"):
        own = ["--model", inputs / "base", "--data", inputs / "images", "--batch_size", "4", "--output_dir", tmp_path]
        return run("compare", l3rs, *own, "--steps", "2", *options)

    return compare


def test_everybody_runs_on_the_same_seeds(compare, inputs, tmp_path):
    pytest.importorskip("schedulefree")
    options = ["--seeds", "2", "--search_seeds", "1"]
    status, out, _ = compare(*options)
    assert status == 0 and any(f"L3RS is {stand}" in out for stand in ("ahead of", "level with", "behind"))
    entry, _ = read_results(tmp_path / "results.json").entries
    assert entry.command.startswith(f"hf-l3rs compare {inputs}/l3rs --model {inputs}/base")
    rows = read_rows(tmp_path / "rows.csv")
    runs = {name: {row.task for row in rows if row.optimizer == name} for name in {row.optimizer for row in rows}}
    assert runs == {name: {0, 1} for name in ("L3RS", "L3RS, untrained", *TUNED, *UNTUNED)}
    assert (tmp_path / "curves.png").exists()


def test_without_a_search_nothing_is_tuned(compare, inputs, tmp_path):
    pytest.importorskip("schedulefree")
    assert compare("--seeds", "1", "--search_seeds", "0", l3rs=inputs)[0] == 0  # the folder that holds l3rs
    assert {row.optimizer for row in read_rows(tmp_path / "rows.csv")} == {"L3RS", "L3RS, untrained", *UNTUNED}
