"""What is made for a model is made once, and every variant and baseline is in the table."""

from pathlib import Path

import pytest
from transformers import ViTImageProcessorPil

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.rows import Row, write_rows
from hf_l3rs.hub.artifact import load_network, save_network
from hf_l3rs.optimizer.config import FEATURES, STRUCTURE, L3RSConfig
from hf_l3rs.optimizer.layers import describe_trainable_layers, role_layers
from hf_l3rs.optimizer.network import L3RSNetwork
from recipes import architecture_transfer as transfer
from tests.tiny import tiny_resnet


@pytest.fixture
def recipes(monkeypatch):
    """Takes the place of meta_train.py and meta_evaluate.py: writes what they would, and says what was asked for."""
    calls = []

    def run(name, config, num_processes, **options):
        calls.append((name, options))
        place = Path(options["output_dir"])
        if name == "meta_train.py":
            (place / "l3rs").mkdir(parents=True)
            return
        losses = {"L3RS": 0.5 - 0.1 * ("inner" in str(place)), **dict.fromkeys(options["baselines"], 0.6)}
        losses |= {"Adam cosine": 0.45} if "Adam cosine" in losses else {}
        rates = {"L3RS": None, "Adam at 1e-3": 1e-3}
        write_rows(
            [
                Row(optimizer, rates.get(optimizer, 2e-3), task, 10, 10, loss, 0.5)
                for optimizer, loss in losses.items()
                for task in range(2)
            ],
            place / "rows.csv",
        )

    monkeypatch.setattr(transfer, "run_recipe", run)
    return calls


def arguments(tmp_path, *options):
    (tmp_path / "tiny").mkdir(exist_ok=True)
    return ["--models", str(tmp_path / "tiny"), "--output_dir", str(tmp_path / "out"), "--l3rs", "start", *options]


def test_the_table_has_every_variant_beside_the_best_baseline(recipes, tmp_path, capsys):
    table = transfer.main(arguments(tmp_path, "--inner_steps", "40", "80"))
    header, _, line = table.splitlines()
    assert header == "| model | steps | untouched | 40 inner steps | 80 inner steps | Adam at 1e-3 | best baseline |"
    assert line == (
        "| tiny | 10 | 0.500 ± 0.000, 0 of 2 | 0.400 ± 0.000, 2 of 2 | 0.400 ± 0.000, 2 of 2 | 0.600 ± 0.000 "
        "| 0.450 ± 0.000 (Adam cosine at 0.002) |"
    )
    assert table in (tmp_path / "out" / "summary.md").read_text() and table in capsys.readouterr().out


def test_warm_starts_begin_with_the_l3rs_and_are_made_once(recipes, tmp_path):
    transfer.main(arguments(tmp_path, "--inner_steps", "80"))
    trainings = [options for name, options in recipes if name == "meta_train.py"]
    assert [(each["initial_l3rs"], each["num_generations"]) for each in trainings] == [("start", 2)]
    measured = [(str(options["l3rs"]), options["baselines"]) for name, options in recipes if name != "meta_train.py"]
    assert measured[0] == ("start", ["Adam at 1e-3", *transfer.TUNED])
    assert measured[1] == (str(trainings[0]["output_dir"] / "l3rs"), ["Adam at 1e-3"])
    before = len(recipes)
    transfer.main(arguments(tmp_path, "--inner_steps", "80"))
    assert [name for name, _ in recipes[before:]] == ["meta_evaluate.py"] * 2


def test_an_interrupted_warm_start_goes_on(recipes, tmp_path):
    (tmp_path / "out" / "tiny" / "40_inner_steps" / "meta_training" / "checkpoint-1").mkdir(parents=True)
    transfer.main(arguments(tmp_path, "--inner_steps", "40"))
    (options,) = [options for name, options in recipes if name == "meta_train.py"]
    assert options["resume_from_checkpoint"] == "last"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "./absent"], "There is no folder './absent'; make it with recipes/base_models/build_zoo.py"),
        (["--models", "recipes", "tests/recipes"], "Two models have one name"),
        (
            ["--inner_steps", "50"],
            "inner_steps must be multiples of 40, which a generation of 2 tasks of 20 steps takes; got 50",
        ),
    ],
)
def test_mistakes_end_in_one_sentence(options, message, recipes, tmp_path):
    with pytest.raises(ConfigError, match=message):
        transfer.main([*arguments(tmp_path), *options])
    assert not recipes


@pytest.mark.slow
def test_the_recipes_themselves(tmp_path):
    model = tiny_resnet()
    model.save_pretrained(tmp_path / "tiny")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "tiny")
    config = L3RSConfig(
        layers=role_layers(describe_trainable_layers(model)),
        features=(*FEATURES, STRUCTURE),
        step_reference="relative",
        base_step=0.02,
    )
    save_network(L3RSNetwork(config), tmp_path / "start")
    options = ["--l3rs", str(tmp_path / "start"), "--smoke"]
    table = transfer.main([*arguments(tmp_path), *options])
    assert "| tiny | 10 |" in table
    warm = load_network(tmp_path / "out" / "smoke" / "tiny" / "40_inner_steps" / "meta_training" / "l3rs")
    assert warm.config.meta_training["inner_steps"] == 40
