"""The configuration: JSON and back, every invalid value told in one sentence, and no field without effect."""

import dataclasses
import functools
import json
import math

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork, LayerSpec, describe_layers
from hf_l3rs.errors import ConfigError, L3RSError
from hf_l3rs.optimizer.config import FORMAT_VERSION
from hf_l3rs.validation import short


LAYER = LayerSpec("weight", (2, 3), "linear_down.weight", "")
CONFIG = L3RSConfig((LAYER,))

# Another valid value for every field that a step depends on.
OTHER = {
    "layers": (LAYER,),
    "directions": ("adam", "muon"),
    "features": ("relative_time", "grad_norm"),
    "embedding_size": 4,
    "hidden_sizes": (16,),
    "ema_decays": (0.2, 0.8, 0.98),
    "relative_times": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.1, 1.2, 1.3),
    "absolute_times": tuple(2.0**k for k in range(11)),
    "step_reference": "relative",
    "width_exponent": 0.75,
    "size_exponent": 0.15,
    "base_step": 2e-3,
    "adam_betas": (0.8, 0.95),
    "adam_eps": 1e-2,
}
# Fields that no step of a short run depends on. The Trainer's callback reads max_grad_norm and its tests cover that,
# test_batch_norm.py and test_step.py have the next two; the rest is told to people.
PROVENANCE = {
    "max_grad_norm": 1.0,
    "batch_norm_momentum": 0.2,
    "anneal_long_runs": True,
    "base_model": "org/model",
    "base_model_revision": "0" * 40,
    "model_type": "resnet",
    "num_training_steps": 100,
    "meta_training": {"dataset": "org/data", "generations": 3, "cost": {"seconds": 1.5}},
    "library_version": "0.1.0",
    "format_version": FORMAT_VERSION,
}


def test_every_field_is_covered():
    assert {field.name for field in dataclasses.fields(L3RSConfig)} == OTHER.keys() | PROVENANCE.keys()


@pytest.mark.parametrize("config", [CONFIG, L3RSConfig(**OTHER, **PROVENANCE)], ids=["defaults", "all"])
def test_json_round_trip(config):
    """Invariant 5."""
    assert L3RSConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.to_dict().keys() == OTHER.keys() | PROVENANCE.keys()


def test_lists_become_tuples():
    config = L3RSConfig([{"name": "weight", "shape": [2, 3], "role": LAYER.role, "block": ""}], hidden_sizes=[4])
    assert config == CONFIG.replace(hidden_sizes=(4,))
    assert config.layers[0].shape == (2, 3)


NAMED = {"name": "weight", "shape": [2], "role": "norm.weight", "block": ""}
INVALID_VALUES = {
    "layers": [
        (),
        (LAYER, LAYER),
        ({"name": "weight"},),
        ({"name": "weight", "shape": ["two"], "role": "norm.weight", "block": ""},),
        ({"name": 1, "shape": [2], "role": "norm.weight", "block": ""},),
        ({**NAMED, "shape": [-1]},),
        ({**NAMED, "shape": [2**63]},),
        ({**NAMED, "shape": [1] * 65},),
        ({**NAMED, "name": "\ud800"},),
        [[[[LAYER]]]],
        [{**NAMED, "name": f"layer {index}"} for index in range(20_001)],
    ],
    "directions": [(), ("adam", "adam"), ("adam", "unheard"), [["adam"]]],
    "features": [("loss", "unheard"), (3,)],
    "embedding_size": [-1, True],
    "hidden_sizes": [(0,), (10**9,), (32,) * 33],
    "ema_decays": [(1.0,), (math.nan,), (0.5,) * 1001],
    "relative_times": [(math.nan,), (0.5,) * 10**5],
    "absolute_times": [(0.0,)],
    "step_reference": ["unheard"],
    "base_step": [0.0, 1e300, 1e-300],
    "width_exponent": [-0.1],
    "size_exponent": [3],
    "adam_betas": [(0.9,), (0.9, 1.0)],
    "adam_eps": [1e-40, 1e300],
    "batch_norm_momentum": [0.0],
    "anneal_long_runs": [1],
    "num_training_steps": [0, 10**30],
    "base_model": [3, "\ud800"],
    "base_model_revision": [3],
    "model_type": [3],
    "library_version": [3],
    "meta_training": [
        {"mean": torch.ones(1)},
        {"loss": math.nan},
        {("a", "b"): 1},
        {"note": "\ud800"},
        functools.reduce(lambda inner, _: {"started_from": inner}, range(900), {}),
        [("a", 1)],
    ],
    "format_version": ["1"],
    "max_grad_norm": [math.inf],
}
INVALID = [(field, value) for field, values in INVALID_VALUES.items() for value in values]


@pytest.mark.parametrize(("field", "value"), INVALID, ids=[f"{field}-{short(value)[:40]}" for field, value in INVALID])
def test_invalid_values_are_told_in_one_sentence(field, value):
    """Invariant 5."""
    with pytest.raises(ConfigError) as caught:
        CONFIG.replace(**{field: value})
    message = str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, L3RSError)
    assert message.endswith(".") and "\n" not in message and len(message) < 300
    assert field in message
    assert message.isprintable()


def test_whole_numbers_stay_whole():
    """The fingerprints of artefacts are of their settings' text, in which 1 and 1.0 differ."""
    config = CONFIG.replace(max_grad_norm=1, adam_betas=(0, 0.99), absolute_times=(1, 2.5))
    assert '"max_grad_norm": 1,' in config.settings and '"adam_betas": [0, 0.99]' in config.settings
    assert '"absolute_times": [1, 2.5]' in config.settings


def test_the_summary_is_plain_json_of_its_own():
    summary = {"splits": ("train", "test"), 3: {"nested": [1, None, True]}}
    config = CONFIG.replace(meta_training=summary)
    summary["splits"] = "other"
    assert config.meta_training == {"splits": ["train", "test"], "3": {"nested": [1, None, True]}}
    deep = functools.reduce(lambda inner, _: {"started_from": inner}, range(50), {"a": 1})
    assert L3RSConfig.from_dict(CONFIG.replace(meta_training=deep).to_dict()).meta_training == deep


def test_every_field_has_an_invalid_value():
    assert INVALID_VALUES.keys() == OTHER.keys() | PROVENANCE.keys()


@functools.cache
def default_run():
    return run()


def run(**changes):
    """Parameters after three steps with meta-weights that make every feature matter, or fewer where sizes change."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 200), nn.Tanh(), nn.Linear(200, 600))  # wide and large enough to shrink steps
    values = {"layers": describe_layers(model.named_parameters()), "directions": ("adam", "muon", "sgd"), **changes}
    if "layers" in changes:
        values["layers"] = values["layers"][:1]
    network = L3RSNetwork(L3RSConfig(**values))
    generator = torch.Generator().manual_seed(1)
    network.load_vector(0.3 * torch.randn(network.num_meta_parameters, generator=generator))
    optimizer = L3RS(model, network=network, num_training_steps=5, minimum_fit=0)
    for _ in range(3):
        loss = model(torch.randn(8, 4, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(loss)
    return torch.cat([param.detach().flatten() for param in model.parameters()])


@pytest.mark.parametrize("field", OTHER)
def test_no_dead_knobs(field):
    """Every field that is not provenance changes the steps, and with them the text that fingerprints are of."""
    assert not torch.equal(run(**{field: OTHER[field]}), default_run())
    changed = CONFIG.replace(
        **{field: (LayerSpec("b", (2,), "norm.bias", ""),) if field == "layers" else OTHER[field]}
    )
    assert changed.settings != CONFIG.settings


@pytest.mark.parametrize("field", PROVENANCE)
def test_provenance_changes_no_step(field):
    assert torch.equal(run(**{field: PROVENANCE[field]}), default_run())
