"""Variations differ in what they name and nothing else, are made once, and are compared in pairs."""

import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.store import read_rows
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
  one mixture: {{embedding_size: 0, features: [loss]}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "ablations.yaml"
    path.write_text(SETTINGS.format(inputs=make_inputs(tmp_path / "inputs"), output=tmp_path / "out"))
    return path


def test_one_command_makes_scores_and_compares_all_and_goes_on(config, tmp_path, capsys):
    out = tmp_path / "out"
    ablations.main([str(config), "--only", "base"])
    made = {path: path.read_bytes() for path in out.glob("base/**/*") if path.suffix in (".csv", ".safetensors")}
    table = ablations.main([str(config)])
    assert len(made) >= 2 and all(path.read_bytes() == data for path, data in made.items())
    header, _, *lines = table.splitlines()
    assert header == "| variation | 1 steps | 2 steps |"
    assert [line.split(" | ")[0] for line in lines] == ["| base", "| Adam alone", "| one mixture"]
    rows = read_rows(out / "rows.csv")
    assert len(rows) == 3 * 2 * 3 and len({row.task for row in rows}) == 3
    assert table in (out / "summary.md").read_text() and table in capsys.readouterr().out
    configs = {name: load_network(out / name / "l3rs").config for name in ("base", "Adam_alone", "one_mixture")}
    assert configs["Adam_alone"].directions == ("adam",) and configs["base"].directions != ("adam",)
    assert (configs["one_mixture"].embedding_size, configs["one_mixture"].features) == (0, ("loss",))
    assert {each.meta_training["seed"] for each in configs.values()} == {0}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("variations:", "variation:", "under variations"),
        ("base: {}", "../base: {}", "under variations"),
        ("base: {}", "base: {horizons: [3]}", "'base' would be scored otherwise"),
        ("base_model:", "only: [less]\nbase_model:", "less; known are base, Adam alone, one mixture"),
        ("directions: [adam]", "directions: [adan]", "'adan'"),
        ("num_scoring_tasks: 3", "num_scoring_tasks: 0", "num_scoring_tasks"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(config, tmp_path, old, new, message):
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        ablations.main([str(config)])
    assert not (tmp_path / "out").exists()


def test_the_config_in_the_repository_is_readable():
    ablation = ablations.read_ablation(["recipes/configs/ablations.yaml"])
    assert next(iter(ablation.variations)) == "base" and len(ablation.variations) > 15
