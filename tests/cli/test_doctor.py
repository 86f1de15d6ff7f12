"""What is installed, and what an L3RS would do with a model."""

import json

import pytest
import torch

from hf_l3rs import L3RSConfig, describe_layers
from hf_l3rs.cli.doctor import NEEDED, expectation
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.optimizer.fit import measure_fit
from hf_l3rs.optimizer.layers import describe_trainable_layers, role_layers
from tests.tiny import tiny_resnet, tiny_vit, trained_network


def test_versions_and_devices(run):
    status, out, err = run("doctor", "--json")
    data = json.loads(out)
    assert (status, err) == (0, "") and set(NEEDED) <= set(data["versions"])
    assert data["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in torch.__version__
    assert data["devices"]["CPU cores"] >= 1 and data["versions"]["python"] in run("doctor")[1]


def test_every_layer_of_a_model_is_told(run, inputs):
    status, out, _ = run("doctor", inputs / "l3rs", "--model", inputs / "base")
    assert status == 0 and "classifier.1.weight" in out and "fits all 20 layers" in out and "what its card" in out
    layers = json.loads(run("doctor", inputs / "l3rs", "--model", inputs / "base", "--json")[1])["layers"]
    assert len(layers) == 20 and {each["matched"] for each in layers} == {"name"}


def test_another_model_is_told_what_to_expect(run, inputs, tmp_path):
    save_network(trained_network(tiny_vit()), tmp_path / "other")
    status, out, _ = run("doctor", tmp_path / "other", "--model", inputs / "base")
    assert status == 0 and "Expect a refusal" in out and "hf-l3rs init" in out


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (lambda layers: layers, "what its card tells"),
        (role_layers, "by role"),
        (lambda layers: layers[1:], "a mean of"),
    ],
)
def test_expectations_follow_the_match(known, says):
    model = tiny_resnet()
    layers = describe_layers(model.named_parameters())
    config = L3RSConfig(layers=tuple(known(layers)), num_training_steps=20, step_reference="relative")
    assert says in expectation(measure_fit(describe_trainable_layers(model), config), config)
