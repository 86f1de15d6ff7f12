"""Base models: what is loaded, what of it is trained, and where inner loops start."""

import logging
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import nn

from hf_l3rs import L3RSConfig, L3RSNetwork
from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import differentiate
from hf_l3rs.optimizer.layers import describe_trainable_layers, renamed
from hf_l3rs.tasks.distribution import TaskSource
from hf_l3rs.tasks.model import (
    InitialStates,
    compare_trainable,
    freeze,
    head_modules,
    load_image_classifier,
    resolved_commit,
)
from hf_l3rs.tasks.pools import ImagePool
from hf_l3rs.tasks.unrolled import UnrolledLearner
from tests.meta.problems import make_tasks
from tests.tiny import tiny_mobilenet, tiny_resnet, tiny_vit


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


@pytest.mark.parametrize("name", ["missing", "owner/missing"])
def test_a_name_that_is_nowhere_is_said(name, monkeypatch):
    """transformers alone would ask an unreachable Hub for 23 seconds."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refuse(name, f"no folder '{name}'.*127.0.0.1:9 does not answer")


def test_what_the_hub_refuses(hub):
    hub.create("org/empty")
    hub.create("org/gated", is_gated=True)
    refuse("org/missing", "neither a local folder 'org/missing' nor a Hub repository")
    refuse("org/gated", "is gated")
    refuse("org/empty", "has no config.json; pass the id")
    with pytest.raises(ArtifactError, match="'org/empty' has no revision 'v9'"):
        load_image_classifier("org/empty", revision="v9")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_warned_of_and_a_missing_head_is_not(folder, caplog):
    change(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("classifier")])
    load_image_classifier(str(folder), 3)
    assert not caplog.records
    change(folder, lambda tensors: tensors.pop(STEM))
    with caplog.at_level(logging.WARNING, "hf_l3rs"):
        load_image_classifier(str(folder), 3)
    (record,) = caplog.records
    assert f"random ones stand in for {STEM}" in record.getMessage()


def test_a_model_without_a_head_has_none_to_renew():
    with pytest.raises(ConfigError, match="its head cannot be renewed"):
        InitialStates(torch.nn.Linear(2, 2))


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def make_network(model):
    """Meta-weights with steps that are large enough to be seen."""
    network = L3RSNetwork(L3RSConfig(layers=tuple(describe_trainable_layers(model)), base_step=5e-3))
    noise = torch.randn(network.num_meta_parameters, generator=torch.Generator().manual_seed(1))
    network.load_vector(network.to_vector() + 0.1 * noise)
    return network


@pytest.mark.parametrize(
    ("make", "trainable", "first", "count"),
    [
        (tiny_resnet, "last:1", "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight", 11),
        (tiny_resnet, "last:2", "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight", 17),
        (tiny_vit, "last:1", "vit.layers.0.attention.q_proj.weight", 20),
        (tiny_mobilenet, "last:1", "mobilenet_v2.layer.15.expand_1x1.convolution.weight", 14),
        (tiny_mobilenet, "last:16", "mobilenet_v2.layer.0.expand_1x1.convolution.weight", 149),
    ],
)
def test_the_last_blocks_are_trained_with_what_comes_after_them(make, trainable, first, count):
    model = make()
    freeze(model, trainable)
    names, last = ([renamed(name) for name in some] for some in (dict(model.named_parameters()), trained(model)))
    assert last == names[names.index(renamed(first)) :] and len(last) == count


@pytest.mark.parametrize("make", [tiny_resnet, tiny_vit, tiny_mobilenet])
def test_all_and_the_head(make):
    model = make()
    freeze(model, "all")
    assert len(trained(model)) == len(list(model.parameters()))
    freeze(model, "head")
    (head,) = head_modules(model)
    assert trained(model) == [f"{head}.weight", f"{head}.bias"]


def test_a_stages_own_layers_are_no_block():
    model = nn.ModuleDict(
        {
            "layers": nn.ModuleList(
                nn.ModuleDict(
                    {"down": nn.Linear(2, 2), "blocks": nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in "ab")}
                )
                for _ in "xy"
            ),
            "head": nn.Linear(2, 2),
        }
    )
    freeze(model, "last:2")
    assert trained(model)[0] == "layers.1.blocks.0.0.weight" and len(trained(model)) == 6
    with pytest.raises(
        ConfigError, match="has 4 numbered blocks, but trainable is last:5; use last:1 to last:4, head"
    ):
        freeze(model, "last:5")


def test_what_a_model_has_not_is_refused():
    with pytest.raises(ConfigError, match="no parameter named classifier, .*trainable=head finds no head to train"):
        freeze(nn.Sequential(nn.Linear(2, 2)), "head")
    with pytest.raises(ConfigError, match="has 0 numbered blocks, but trainable is last:1; use head or all"):
        freeze(nn.ModuleDict({"head": nn.Linear(2, 2)}), "last:1")


@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_no_graph_is_built_for_what_is_frozen_and_its_batch_norm_goes_on(trainable):
    model = tiny_resnet()
    freeze(model, trainable)
    network, task = make_network(model), make_tasks(model).draw(0, 0, 0)
    learner = UnrolledLearner(model, network, network.to_vector().requires_grad_(), task.num_training_steps)
    seen = []
    model.resnet.encoder.stages[0].register_forward_hook(lambda *call: seen.append(call[2].requires_grad))
    gradient, meta_loss, _, _ = differentiate(learner, task)
    end = learner.snapshot()
    assert set(seen) == {False} and gradient.norm() > 0
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert all(torch.equal(end.fixed[name], task.initial_state[name]) for name in frozen)
    statistics = "resnet.embedder.embedder.normalization.running_mean"
    assert not torch.equal(end.fixed[statistics], task.initial_state[statistics])
    assert meta_loss == pytest.approx(rollout(model, network, task).loss, rel=1e-5)
    assert torch.equal(model.get_parameter(frozen[0]), task.initial_state[frozen[0]])


@pytest.mark.parametrize(
    ("record", "trainable", "warns"),
    [
        ({}, "head", False),
        ({"data": []}, "all", False),
        ({"data": []}, "head", True),
        ({"trainable": "last:2"}, "last:2", False),
        ({"trainable": "last:2"}, "last:1", True),
    ],
)
def test_other_layers_than_in_meta_training_are_told(record, trainable, warns, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_l3rs"):
        compare_trainable(record, trainable)
    assert (f"meta-trained with trainable={record.get('trainable', 'all')}" in caplog.text) == warns


def adapted(make=tiny_vit):
    pytest.importorskip("peft")
    model = make()
    freeze(model, "lora:2")
    return model


@pytest.mark.parametrize(("make", "part", "count"), [(tiny_vit, "q_proj", 2), (tiny_resnet, "convolution", 6)])
def test_adapters_and_head_are_trained_and_nothing_else(make, part, count):
    """Queries and values are adapted, or else dense convolutions."""
    names = trained(adapted(make))
    assert all(".lora_" in name or name.startswith("classifier") for name in names)
    assert len(names) == 2 * count + 2 and any(part in name for name in names)


def test_adapters_start_anew_for_each_seed_and_change_nothing_yet():
    states = InitialStates(adapted())
    first, again, other = states.draw(1), states.draw(1), states.draw(2)
    downs = [name for name in first if ".lora_A." in name]
    assert len(downs) == 2
    for name in downs:
        assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
        assert not first[name.replace("lora_A", "lora_B")].any() and first[name].std() > 0
    head = InitialStates(tiny_vit()).draw(1)["classifier.weight"]
    assert torch.equal(first["classifier.weight"], head)  # as where everything is trained


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_a_run_is_the_same_differentiated_together_and_alone(make):
    model = adapted(make)
    labels = torch.arange(60) % 3
    images = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pool = ImagePool(images, labels, ["one", "two", "three"])
    task = make_tasks(model, sources=[TaskSource("noise", pool, pool)]).draw(0, 0, 0)
    network = make_network(model)
    learner = UnrolledLearner(
        model, network, network.to_vector().requires_grad_(), task.num_training_steps, feature_gradient=True
    )
    gradient, meta_loss, _, _ = differentiate(learner, task)
    assert torch.isfinite(gradient).all() and gradient.norm() > 0  # at first A has no gradient, as B is zero
    assert meta_loss == pytest.approx(rollout(model, network, task).loss, rel=1e-5)


def test_what_cannot_be_adapted_is_refused(monkeypatch):
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="neither query and value projections nor convolutions .*lora:2 to adapt"):
        freeze(nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)}), "lora:2")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'needs the package peft.*pip install "hf_l3rs\[peft\]"'):
        freeze(tiny_vit(), "lora:2")
