"""Adapters as what tasks fine-tune: where they are put, how they start, and that they go through meta-training."""

import sys

import pytest
import torch
from torch import nn

from hf_l3rs import L3RSConfig, L3RSNetwork
from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.candidates import rollout
from hf_l3rs.meta.gradient import differentiate
from hf_l3rs.optimizer.layers import describe_trainable_layers, renamed
from hf_l3rs.tasks.distribution import TaskSource
from hf_l3rs.tasks.model import RANDOM, InitialStates, adapted_modules, freeze
from hf_l3rs.tasks.pools import ImagePool
from hf_l3rs.tasks.unrolled import UnrolledLearner
from tests.meta.problems import make_tasks
from tests.tiny import tiny_mobilenet, tiny_resnet, tiny_vit


def adapted(make=tiny_vit):
    pytest.importorskip("peft")
    model = make()
    freeze(model, "lora:2")
    return model


def adapted_network(model):
    network = L3RSNetwork(L3RSConfig(layers=tuple(describe_trainable_layers(model)), base_step=5e-3))
    noise = torch.randn(network.num_meta_parameters, generator=torch.Generator().manual_seed(1))
    network.load_vector(network.to_vector() + 0.1 * noise)
    return network


def test_queries_and_values_or_else_dense_convolutions_are_adapted():
    names = [renamed(f"{name}.weight") for name in adapted_modules(tiny_vit())]
    assert names == ["layers.0.attention.q_proj.weight", "layers.0.attention.v_proj.weight"]
    names = adapted_modules(tiny_mobilenet())
    assert "mobilenet_v2.layer.15.expand_1x1.convolution" in names
    assert "mobilenet_v2.layer.15.conv_3x3.convolution" not in names  # one group a channel
    assert len(adapted_modules(tiny_resnet())) == 6


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet, tiny_mobilenet])
def test_adapters_and_head_are_trained_and_nothing_else(make):
    model = adapted(make)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name or name.startswith("classifier") for name in trained)
    assert len(trained) == 2 * len(adapted_modules(make())) + 2


@pytest.mark.parametrize("start", ["checkpoint", RANDOM])
def test_adapters_start_anew_for_each_seed_and_change_nothing_yet(start):
    model = adapted()
    plain = tiny_vit().state_dict()
    states = InitialStates(model, [RANDOM if start == RANDOM else model.state_dict()])
    first, again, other = states.draw(1), states.draw(1), states.draw(2)
    downs = [name for name in first if ".lora_A." in name]
    assert len(downs) == 2
    for name in downs:
        assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
        assert not first[name.replace("lora_A", "lora_B")].any() and first[name].std() > 0
    if start != RANDOM:
        head = InitialStates(tiny_vit(), [plain]).draw(1)["classifier.weight"]
        assert torch.equal(first["classifier.weight"], head)  # as where everything is trained


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_a_run_is_the_same_differentiated_together_and_alone(make):
    model = adapted(make)
    labels = torch.arange(60) % 3
    images = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pool = ImagePool(images, labels, ["one", "two", "three"])
    task = make_tasks(model, sources=[TaskSource("noise", pool, pool)]).draw(0, 0, 0)
    network = adapted_network(model)
    learner = UnrolledLearner(
        model, network, network.to_vector().requires_grad_(), task.num_training_steps, feature_gradient=True
    )
    gradient, trajectory, _ = differentiate(learner, task, [task.num_training_steps])
    assert torch.isfinite(gradient).all() and gradient.norm() > 0  # at first A has no gradient, as B is zero
    plain = rollout(model, network, task)
    assert trajectory.evaluations[plain.num_steps].loss == pytest.approx(plain.loss, rel=1e-5)


def test_what_cannot_be_adapted_is_refused(monkeypatch):
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="neither query and value projections nor convolutions .*lora:2 to adapt"):
        freeze(nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)}), "lora:2")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'needs the package peft.*pip install "hf_l3rs\[peft\]"'):
        freeze(tiny_vit(), "lora:2")
