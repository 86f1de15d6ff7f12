"""All layers, the head, or the last blocks: what is frozen stays as it is, costs nothing, and is told."""

import logging

import pytest
import torch
from torch import nn

from hf_l3rs import L3RSConfig, L3RSNetwork
from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.candidates import rollout
from hf_l3rs.meta.gradient import differentiate
from hf_l3rs.optimizer.layers import describe_trainable_layers, renamed
from hf_l3rs.tasks.model import check_trainable, compare_trainable, freeze, head_modules
from hf_l3rs.tasks.unrolled import UnrolledLearner
from tests.meta.problems import make_tasks
from tests.tiny import tiny_mobilenet, tiny_resnet, tiny_vit


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def frozen_resnet(trainable):
    model = tiny_resnet()
    freeze(model, trainable)
    return model


def make_network(model):
    """Meta-weights with steps that are large enough to be seen."""
    network = L3RSNetwork(L3RSConfig(layers=tuple(describe_trainable_layers(model)), base_step=5e-3))
    noise = torch.randn(network.num_meta_parameters, generator=torch.Generator().manual_seed(1))
    network.load_vector(network.to_vector() + 0.1 * noise)
    return network


@pytest.mark.parametrize("value", ["all", "head", "last:1", "last:24", "lora:8"])
def test_choices(value):
    check_trainable(value)


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
    model = frozen_resnet(trainable)
    network, task = make_network(model), make_tasks(model).draw(0, 0, 0)
    learner = UnrolledLearner(model, network, network.to_vector().requires_grad_(), task.num_training_steps)
    seen = []
    model.resnet.encoder.stages[0].register_forward_hook(lambda *call: seen.append(call[2].requires_grad))
    gradient, trajectory, end = differentiate(learner, task, [task.num_training_steps])
    assert set(seen) == {False} and gradient.norm() > 0
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert all(torch.equal(end.fixed[name], task.initial_state[name]) for name in frozen)
    statistics = "resnet.embedder.embedder.normalization.running_mean"
    assert not torch.equal(end.fixed[statistics], task.initial_state[statistics])
    plain = rollout(model, network, task)
    assert trajectory.evaluations[plain.num_steps].loss == pytest.approx(plain.loss, rel=1e-5)
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
    assert bool(caplog.records) == warns
    if warns:
        own = record.get("trainable", "all")
        assert f"meta-trained with trainable={own}, and is now used with trainable={trainable}; set it to {own}" in (
            caplog.text
        )
