"""What is no intact image classifier is refused in one sentence, before anything is trained on it."""

import logging
import time

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.tasks.model import load_image_classifier, resolved_commit
from tests.tiny import tiny_resnet, trained_network


STEM = "resnet.embedder.embedder.convolution.weight"


@pytest.fixture
def folder(tmp_path):
    tiny_resnet().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refuse(name, match, num_labels=3):
    with pytest.raises(ArtifactError, match=match) as error:
        load_image_classifier(str(name), num_labels)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_a_new_head_and_the_checkpoints_own(folder, caplog):
    new, own = load_image_classifier(str(folder), 7), load_image_classifier(str(folder))
    assert (new.config.num_labels, own.config.num_labels) == (7, 4)
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, tiny_resnet().state_dict()[name])
    assert torch.equal(new.state_dict()[STEM], own.state_dict()[STEM])
    assert resolved_commit(own) is None and not caplog.records


def test_half_precision_checkpoints_are_trained_in_float32(tmp_path):
    tiny_resnet().half().save_pretrained(tmp_path)
    model = load_image_classifier(str(tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["", " ", "./missing", "../missing", "/missing/folder", "~/model", "a/b/c"])
def test_mistyped_folders(name):
    refuse(name, "There is no folder .*give an existing folder")


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("name", ["missing", "owner/missing"])
def test_a_name_that_is_nowhere_is_said_at_once(name, offline, monkeypatch):
    """transformers alone would ask an unreachable Hub for 23 seconds."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.perf_counter()
    refuse(name, f"no folder '{name}'.*" + ("downloads are off" if offline else "127.0.0.1:9 does not answer"))
    assert time.perf_counter() - start < 5


def test_what_the_hub_refuses(hub):
    hub.create("org/empty")
    hub.create("org/gated", is_gated=True)
    refuse("org/missing", "neither a local folder 'org/missing' nor a Hub repository")
    refuse("org/gated", "is gated")
    refuse("org/empty", "has no config.json, so it is no model of transformers")
    with pytest.raises(ArtifactError, match="'org/empty' has no revision 'v9'"):
        load_image_classifier("org/empty", revision="v9")


def test_a_learned_optimizer_is_no_model(folder, tmp_path):
    """transformers would make a random model of the type that the L3RS names."""
    network = trained_network(tiny_resnet(), base_model="org/resnet", model_type="resnet")
    save_network(network, tmp_path / "l3rs")
    refuse(tmp_path / "l3rs", r"is an L3RS, not a model to fine-tune; give its base model \(org/resnet\)")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (None, "no readable config.json"),
        ("{", "no readable config.json"),
        ("\udcff", "no readable config.json"),
        ("[" * 100_000, "no readable config.json"),
        ("[]", "cannot be loaded as an image classifier"),
        ('{"model_type": "bert"}', "cannot be loaded as an image classifier .*BertConfig"),
        ('{"model_type": "no such type"}', "cannot be loaded as an image classifier .*no such type"),
        ('{"model_type": 3}', "cannot be loaded as an image classifier"),
        ('{"model_type": "resnet", "hidden_sizes": "many"}', "cannot be loaded as an image classifier"),
        ('{"model_type": "x", "auto_map": {"AutoConfig": "x.Y"}}', "cannot be loaded as an image classifier"),
    ],
)
def test_configs_that_are_none(folder, config, match):
    file = folder / "config.json"
    file.unlink()
    if config is not None:
        file.write_bytes(config.encode(errors="surrogateescape"))
    refuse(folder, match)


@pytest.mark.parametrize("size", [None, 0, 4, 1000, -100])
def test_truncated_weights(folder, size):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    if size is not None:
        file.write_bytes(content[:size])
    refuse(folder, "cannot be loaded as an image classifier")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_of_another_model(folder, tmp_path):
    change(folder, lambda tensors: tensors.update({STEM: tensors[STEM][:2].clone()}))
    refuse(folder, f"has a shape that the config rules out in {STEM}")
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, "has none of its weights")
    refuse(folder, "has none of its weights", num_labels=None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(folder, value):
    change(folder, lambda tensors: tensors[STEM].flatten()[:1].fill_(value))
    refuse(folder, f"not numbers in {STEM}")


def test_missing_weights_are_warned_of_and_a_missing_head_is_not(folder, caplog):
    change(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("classifier")])
    load_image_classifier(str(folder), 3)
    assert not caplog.records
    change(folder, lambda tensors: tensors.pop(STEM))
    with caplog.at_level(logging.WARNING, "hf_l3rs"):
        load_image_classifier(str(folder), 3)
    (record,) = caplog.records
    assert f"random ones stand in for {STEM}" in record.getMessage()


def test_transformers_speaks_again_afterwards(folder):
    from transformers.utils import logging as transformers_logging

    def state():
        return transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()

    before = state()
    load_image_classifier(str(folder))
    (folder / "model.safetensors").unlink()
    refuse(folder, "cannot be loaded")
    assert state() == before
