"""Variations differ in what they name and nothing else, are made once, and are compared in pairs."""

import math

import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.results import Row, read_rows
from hf_l3rs.hub.artifact import load_network
from recipes import ablations
from tests.evaluation.evaluate_tiny import make_inputs


SETTINGS = """
base_model: {inputs}/base
datasets: [{inputs}/images]
num_classes: 3
batch_size: 4
evaluation_size: 8
min_steps: 2
estimator: gradient
num_generations: 2
num_tasks: 1
learning_rate: 0.1
num_validation_tasks: 0
output_dir: {output}
horizons: [1, 2]
num_scoring_tasks: 3
scoring_size: 12
variations:
  base: {{}}
  Adam alone: {{directions: [adam]}}
  one mixture: {{constant: [mixture], features: [loss]}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "ablations.yaml"
    path.write_text(SETTINGS.format(inputs=make_inputs(tmp_path / "inputs"), output=tmp_path / "out"))
    return path


def test_one_command_makes_scores_and_compares_all_and_goes_on(config, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    first = ablations.main([str(config), "--only", "base"])
    assert [line.split(" | ")[0] for line in first.splitlines()[2:]] == ["| base"]
    made = {path: path.read_bytes() for path in out.glob("base/**/*") if path.suffix in (".csv", ".safetensors")}
    table = ablations.main([str(config)])
    assert len(made) >= 2 and all(path.read_bytes() == data for path, data in made.items())
    header, _, *lines = table.splitlines()
    assert header == "| variation | 1 steps | 2 steps | inner steps | in plain ones | seconds |"
    assert [line.split(" | ")[0] for line in lines] == ["| base", "| Adam alone", "| one mixture"]
    assert all(line.split(" | ")[3:5] == ["4", "13"] for line in lines)
    rows = read_rows(out / "rows.csv")
    assert len(rows) == 3 * 2 * 3 and len({row.task for row in rows}) == 3
    assert table in (out / "summary.md").read_text() and table in capsys.readouterr().out
    assert (out / "ablations.png").is_file()
    configs = {name: load_network(out / name / "l3rs").config for name in ("base", "Adam_alone", "one_mixture")}
    assert configs["Adam_alone"].directions == ("adam",) and not configs["base"].constant
    assert (configs["one_mixture"].constant, configs["one_mixture"].features) == (("mixture",), ("loss",))
    with_seed = [each.meta_training["seed"] for each in configs.values()]
    assert with_seed == [0, 0, 0]


def rows_of(losses):
    return [Row(name, None, task, 10, 10, loss, 0.5) for name, own in losses.items() for task, loss in enumerate(own)]


def test_differences_are_of_pairs():
    """A variation that is 0.1 worse on each task has no standard error, however far tasks are apart."""
    rows = rows_of({"base": [0.2, 0.4, 0.9], "worse": [0.3, 0.5, 1.0], "lost": [0.2, math.inf, 0.2]})
    tables = ablations.compared(rows, "base")
    worse = tables[10].loc["worse"]
    assert worse.loss == pytest.approx(0.6) and worse.difference == pytest.approx(0.1)
    assert worse.stderr == pytest.approx(0, abs=1e-12)
    costs = dict.fromkeys(("base", "worse", "lost"), {"inner_steps": 2700, "cost_in_plain_steps": 8640, "seconds": 9})
    lines = ablations.to_table(tables, costs, "base").splitlines()[2:]
    assert lines == [
        "| base | 0.500 | 2,700 | 8,640 | 9 |",
        "| worse | 0.600 (+0.100 ± 0.000) | 2,700 | 8,640 | 9 |",
        "| lost | diverged on 1 | 2,700 | 8,640 | 9 |",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("variations:", "variation:", "Unknown|must have, under variations"),
        ("base: {}", "../base: {}", "must have, under variations, different names of letters"),
        ("base: {}", "base: []", "each with a mapping of the settings that differ"),
        ("base: {}", "Adam_alone: {}", "different names"),
        ("base: {}", "base: {horizons: [3]}", "The variation 'base' would be scored otherwise"),
        ("base: {}", "base: {output_dir: x}", "'base' would be scored otherwise, or elsewhere"),
        ("directions: [adam]", "directions: [adan]", "directions must be one of adam, .*got 'adan'"),
        ("num_scoring_tasks: 3", "num_scoring_tasks: 0", "num_scoring_tasks must be in"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(config, tmp_path, old, new, message):
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        ablations.main([str(config)])
    assert not (tmp_path / "out").exists()


def test_an_unknown_variation_is_told_with_those_there_are(config):
    with pytest.raises(ConfigError, match="Unknown variations less; known are base, Adam alone, one mixture"):
        ablations.main([str(config), "--only", "less"])


def test_the_config_in_the_repository_is_readable():
    ablation = ablations.read_ablation(["recipes/configs/ablations_resnet_tiny_fashion.yaml"])
    assert next(iter(ablation.variations)) == "base" and len(ablation.variations) > 20
