"""The artefact in a folder: what is saved is what is loaded, and what cannot be loaded is explained."""

import math
import time
from pathlib import Path

import pytest
import torch

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError, ConfigError, L3RSError
from hf_l3rs.hub.artifact import CONFIG_NAME, WEIGHTS_NAME, load_network, save_network
from tests.hub.examples import assert_one_sentence, change_config, change_tensors, make_network


def test_loaded_network_is_the_saved_one(saved):
    network = make_network()
    loaded = load_network(saved)
    assert loaded.fingerprint() == network.fingerprint()
    assert torch.equal(loaded.to_vector(), network.to_vector())
    assert loaded.config == network.config.replace(library_version=loaded.config.library_version)


def test_missing_folder():
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(Path("no/such/folder"))
    assert_one_sentence(error, "no/such/folder", "does not exist", "pass the folder")


def test_file_in_place_of_folder(saved):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(str(saved / WEIGHTS_NAME))
    assert_one_sentence(error, "not a folder", "pass the folder")


def test_folder_of_a_transformers_model(tmp_path):
    (tmp_path / CONFIG_NAME).write_text('{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}')
    with pytest.raises(ArtifactError) as error:
        load_network(tmp_path)
    assert_one_sentence(error, "a transformers model, not an L3RS", "pass the folder or Hub id")


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, str(saved), f"has no {name}")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format_version": 1}{'])
def test_config_that_is_not_json(saved, content):
    (saved / CONFIG_NAME).write_bytes(content)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "is not JSON", "save or download")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"format_version": 99}, ["format_version 99", "pip install -U hf_l3rs"]),
        ({"surplus": 1}, ["Unknown fields", "surplus"]),
        ({"directions": ["newton"]}, ["directions", "newton"]),
        ({"layers": [{"name": "x"}]}, ["name, shape, role and block"]),
    ],
)
def test_invalid_config(saved, changes, words):
    change_config(saved, **changes)
    with pytest.raises(ConfigError) as error:
        load_network(saved)
    assert_one_sentence(error, str(saved), *words)


def test_config_value_of_a_wrong_type(saved):
    change_config(saved, layers=[{"name": "x", "shape": ["wide"], "role": "linear.weight", "block": ""}])
    with pytest.raises(L3RSError) as error:
        load_network(saved)
    assert_one_sentence(error, CONFIG_NAME)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    data = (saved / WEIGHTS_NAME).read_bytes()
    (saved / WEIGHTS_NAME).write_bytes(data[:keep])
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "truncated or not a safetensors file", "save or download")


def test_pickled_weights_are_not_opened(saved):
    torch.save(make_network().state_dict(), saved / WEIGHTS_NAME)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "not a safetensors file")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda tensors: tensors.pop("embeddings"), ["missing ['embeddings']", "same save"]),
        (lambda tensors: tensors.update(more=torch.zeros(1)), ["surplus ['more']", "same save"]),
        (lambda tensors: tensors.update(embeddings=torch.zeros(1, 8)), ["has shape (1, 8)", "same save"]),
        (lambda tensors: tensors["embeddings"].fill_(float("nan")), ["'embeddings'", "not finite"]),
        (lambda tensors: tensors["weights.0"].fill_(float("inf")), ["'weights.0'", "not finite"]),
    ],
)
def test_tensors_that_do_not_fit(saved, change, words):
    change_tensors(saved, change)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, WEIGHTS_NAME, str(saved), *words)


def test_weights_are_saved_in_32_bits(tmp_path):
    save_network(make_network().double(), tmp_path)
    assert load_network(tmp_path).fingerprint() == make_network().fingerprint()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_weights_in_other_types_are_refused(saved, dtype):
    change_tensors(saved, lambda tensors: tensors.update({name: value.to(dtype) for name, value in tensors.items()}))
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, WEIGHTS_NAME, "32 bits", str(dtype), "save the L3RS again")


def test_meta_weights_that_are_no_numbers_are_not_saved(tmp_path):
    network = make_network()
    network.biases[0][0] = float("nan")
    with pytest.raises(ArtifactError) as error:
        save_network(network, tmp_path / "out")
    assert_one_sentence(error, "not finite", "converged")
    assert not (tmp_path / "out").exists()


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


def test_a_huge_file_is_not_read(saved):
    (saved / CONFIG_NAME).write_bytes(b" " * 10**7)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "more than 8,388,608 bytes")
