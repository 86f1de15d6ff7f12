"""The artefact in a folder: what is saved is what is loaded, and what cannot be loaded is explained."""

import math
import time

import pytest
import torch

from hf_l3rs.errors import ArtifactError, L3RSError
from hf_l3rs.hub.artifact import WEIGHTS_NAME, load_network, save_network
from tests.hub.examples import assert_one_sentence, change_config, change_tensors, make_network


def test_loaded_network_is_the_saved_one(saved):
    network = make_network()
    loaded = load_network(saved)
    assert loaded.fingerprint() == network.fingerprint()
    assert torch.equal(loaded.to_vector(), network.to_vector())
    assert loaded.config == network.config.replace(library_version=loaded.config.library_version)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    data = (saved / WEIGHTS_NAME).read_bytes()
    (saved / WEIGHTS_NAME).write_bytes(data[:keep])
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "has no intact", "save or download")


def test_weights_are_saved_in_32_bits(tmp_path):
    save_network(make_network().double(), tmp_path)
    assert load_network(tmp_path).fingerprint() == make_network().fingerprint()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_weights_in_other_types_are_refused(saved, dtype):
    change_tensors(saved, lambda tensors: tensors.update({name: value.to(dtype) for name, value in tensors.items()}))
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, WEIGHTS_NAME, "32 bits", str(dtype), "save the L3RS again")


def test_commit_of_the_base_model_is_remembered(saved, tmp_path):
    assert load_network(saved).config.base_model_revision is None
    network = make_network()
    network.config = network.config.replace(base_model_revision="0" * 40)
    save_network(network, tmp_path)
    assert load_network(tmp_path).config.base_model_revision == "0" * 40
    assert load_network(tmp_path).fingerprint() == make_network().fingerprint()


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


LAYER = {"name": "x", "shape": [2], "role": "norm.weight", "block": ""}
OVERSIZED = {
    "wide": {"hidden_sizes": [30_000, 30_000]},
    "wider": {"hidden_sizes": [10**9]},
    "widest": {"hidden_sizes": [10**30]},
    "deep": {"hidden_sizes": [32] * 100_000},
    "other": {"hidden_sizes": [64, 64]},
    "embeddings": {"embedding_size": 10**9},
    "features": {"relative_times": [0.5] * 100_000},
    "many layers": {"layers": [{**LAYER, "name": f"x{index}"} for index in range(30_000)]},
    "step": {"base_step": 1e300},
    "step beyond floats": {"base_step": 10**400},
    "infinite step": {"base_step": math.inf},
    "infinite shape": {"layers": [{**LAYER, "shape": [math.inf]}]},
    "negative shape": {"layers": [{**LAYER, "shape": [-2]}]},
    "huge shape": {"layers": [{**LAYER, "shape": [10**30]}]},
    "shape of many sizes": {"layers": [{**LAYER, "shape": [1] * 10_000}]},
    "nested summary": {"meta_training": {"note": nested(900)}},
    "nested name": {"base_model": nested(900)},
    "nested layers": {"layers": nested(900)},
    "endless horizon": {"num_training_steps": 10**30},
    "text that none is": {"base_model": "\ud800"},
    "unknown fields": {f"field {index}": index for index in range(100_000)},
    "commands to the terminal": {"\x1b[31m\n": 1},
}


@pytest.mark.parametrize("changes", OVERSIZED.values(), ids=OVERSIZED)
def test_sizes_are_refused_before_anything_is_allocated(saved, monkeypatch, changes):
    change_config(saved, **changes)
    monkeypatch.setattr("hf_l3rs.hub.artifact.L3RSNetwork", None)
    monkeypatch.setattr("hf_l3rs.hub.artifact.safetensors.torch.load_file", None)
    start = time.perf_counter()
    with pytest.raises(L3RSError) as error:
        load_network(saved)
    assert time.perf_counter() - start < 3  # a fraction of a second, where nothing else is running
    assert_one_sentence(error, str(saved))
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()
