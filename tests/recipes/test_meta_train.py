"""The recipes as their user runs them, on the embedded models and images, small."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForImageClassification, ViTImageProcessorPil

from hf_l3rs import L3RS, L3RSArtifact
from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import load_network
from recipes import meta_train
from recipes.evidence.experiment import read_experiment
from tests.evaluation.evaluate_tiny import make_inputs
from tests.tiny import tiny_mobilenet


SMALL = "--num_generations=2 --stages=1 --estimator=evolution --num_pairs=1 --min_steps=2 --max_steps=3".split()
SMALL += ["--evaluation_size=50", "--num_validation_tasks=1"]
TINY = {"num_classes": 3, "batch_size": 4, "evaluation_size": 8, "num_tasks": 1, "num_generations": 1}
TINY |= {"num_validation_tasks": 0, "min_steps": 1}


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet", []), ("vit", ["--estimator=segments", "--segment_steps=2", "--num_tasks=2"])],
    ids=["resnet", "segments"],
)
def test_meta_training_makes_an_artefact_that_steps(name, options, tmp_path):
    arguments = [f"recipes/configs/{name}_tiny_fashion.yaml", *SMALL, *options, f"--output_dir={tmp_path}"]
    folder = meta_train.main(arguments)
    network = load_network(folder)
    summary = network.config.meta_training
    assert summary["inner_steps"] >= 2 * 2 and "validation_loss_untrained" in summary
    assert network.config.base_model == f"recipes/base_models/{name}-tiny-fashion"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["generation"] for line in lines] == [1, 2]
    model = AutoModelForImageClassification.from_pretrained(network.config.base_model)
    optimizer = L3RS.from_pretrained(folder).bind(model, num_training_steps=1)
    model(pixel_values=torch.randn(4, 3, 28, 28), labels=torch.arange(4)).loss.backward()
    optimizer.step()
    assert optimizer.statistics()["step_size"] > 0


@pytest.mark.parametrize("trainable", ["all", "last:2"])
def test_a_mobilenet_by_gradient_with_a_part_of_its_layers(trainable, tmp_path, caplog):
    """Dropout, batch norm and depthwise kernels are differentiated twice; what is frozen is no layer of the L3RS."""
    make_inputs(tmp_path)
    model = tiny_mobilenet()
    model.save_pretrained(tmp_path / "base")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "base")
    paths = {"base_model": str(tmp_path / "base"), "datasets": [str(tmp_path / "images")]}
    settings = {**TINY, **paths, "trainable": trainable, "max_steps": 2, "output_dir": str(tmp_path / "out")}
    recipe = read_experiment("recipes/configs/mobilenet_v2_fashion.yaml").stages[0]
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**recipe, **settings}))
    network = load_network(meta_train.main([str(tmp_path / "my.yaml")]))
    count = {"all": len(list(model.parameters())), "last:2": 23}[trainable]
    assert len(network.config.layers) == count and network.config.layers[-1].role == "head.bias"
    summary = network.config.meta_training
    assert summary.get("trainable", "all") == trainable and summary["num_diverged"] == 0


def test_a_stage_goes_on_from_the_one_before_and_is_not_made_again(tmp_path):
    file, inputs = tmp_path / "my.yaml", make_inputs(tmp_path / "inputs")
    common = {**TINY, "base_model": str(inputs / "base"), "datasets": [str(inputs / "images")], "max_steps": 1}
    first = {"output_dir": str(tmp_path / "one")}
    second = {"output_dir": str(tmp_path / "two"), "initial_l3rs": str(tmp_path / "one/l3rs")}
    file.write_text(yaml.safe_dump({**common, "estimator": "gradient", "meta_training": [first, second]}))
    assert meta_train.main([str(file)]) == tmp_path / "two/l3rs"
    summary = load_network(tmp_path / "two/l3rs").config.meta_training
    assert summary["inner_steps"] == 2 and summary["started_from"]["inner_steps"] == 1
    metrics = {name: (tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two")}
    meta_train.main([str(file)])
    assert {name: (tmp_path / name / "metrics.jsonl").read_bytes() for name in metrics} == metrics
    with pytest.raises(ConfigError, match="has 2 stages; got the numbers 3"):
        meta_train.main([str(file), "--stages", "3"])


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("recipes/configs").glob("[!p]*_*.yaml")))
def test_the_stages_of_a_settings_file_are_how_the_release_was_made(name):
    summary = L3RSArtifact.from_pretrained(f"l3rs-{name.replace('_', '-')}").config.meta_training
    for stage in reversed(read_experiment(f"recipes/configs/{name}.yaml").stages):
        told = {key: value for key, value in stage.items() if key in summary and key not in ("datasets", "base_model")}
        assert len(told) > 8 and told == {key: summary[key] for key in told}
        summary = summary.get("started_from", {})
    assert not summary
