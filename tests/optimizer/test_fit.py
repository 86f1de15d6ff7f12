"""How well an L3RS fits a model, and what is refused for it."""

import copy
import logging
import pickle

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS, LayerSpec, describe_layers
from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.config import STRUCTURE
from hf_l3rs.optimizer.fit import Fit, measure_fit
from hf_l3rs.optimizer.layers import role_layers
from tests.tiny import assert_same, tiny_resnet, tiny_vit, trained_network


def layer(name, shape=(4, 4), role="linear.weight", block=""):
    return LayerSpec(name, shape, role, block)


def fit_of(layers, known, **config):
    return measure_fit(layers, trained_network(nn.Linear(1, 1), layers=tuple(known), **config).config)


def by_role(model, step_reference="relative", **config):
    layers = role_layers(describe_layers(model.named_parameters()))
    return trained_network(model, layers=layers, step_reference=step_reference, **config)


def test_each_way_to_match_is_counted():
    known = [layer("a"), layer("vit.encoder.layer.0.b"), layer("c", (4,), "norm.bias", "1"), layer("d", (4, 2))]
    known += [layer("classifier.weight", (3, 4), "head.weight")]
    layers = [
        layer("a"),
        layer("encoder.layers.0.b"),
        layer("x", (4,), "norm.bias", "1"),
        layer("d", (8, 4)),
        layer("classifier.weight", (10, 4), "head.weight"),
        layer("y", (6, 6)),
        layer("z", (2, 2), "query.weight"),
    ]
    fit = fit_of(layers, known)
    assert [each.kind for each in fit.layers] == [
        "name", "name", "structure", "unknown", "name", "unknown", "unknown",
    ]  # fmt: skip
    assert fit.counts == {"name": 3, "structure": 1, "unknown": 3}
    assert fit.share == 36 / (16 + 16 + 4 + 32 + 36 + 4) and not fit.is_full  # head aside
    assert fit.misfits == ["d", "y", "z"]


def test_a_head_may_have_other_classes_but_no_other_width():
    known = [layer("classifier.weight", (3, 4), "head.weight"), layer("classifier.bias", (3,), "head.bias")]
    assert fit_of([layer("classifier.weight", (9, 4), "head.weight")], known).is_full
    assert fit_of([layer("classifier.bias", (9,), "head.bias")], known).is_full
    assert fit_of([layer("classifier.weight", (3, 8), "head.weight")], known).counts == {"unknown": 1}


def test_a_head_of_another_name_is_known_by_its_role_and_fan_in():
    known = [layer("a"), layer("classifier.weight", (3, 4), "head.weight")]
    known += [layer("classifier.bias", (3,), "head.bias")]
    named = [layer("fc.weight", (1000, 4), "head.weight"), layer("fc.bias", (1000,), "head.bias")]
    assert fit_of([layer("a"), *named], known).is_full
    assert fit_of([layer("fc.weight", (3, 8), "head.weight")], known).counts == {"unknown": 1}
    two = [*known, layer("distillation.weight", (3, 8), "head.weight")]
    assert fit_of(named, two).counts == {"structure": 1, "unknown": 1}, "their mean is that of no one head"
    mislabelled = [layer("role:head.bias", (), "head.weight")]
    assert fit_of(named[:1], mislabelled, step_reference="relative").counts == {"unknown": 1}


def test_a_large_head_does_not_decide():
    known = [layer("a", (4, 4)), layer("classifier.weight", (3, 4), "head.weight")]
    head = layer("classifier.weight", (1000, 4), "head.weight")
    assert fit_of([layer("a", (4, 4)), head], known).share == 1
    assert fit_of([layer("stranger", (9, 9)), head], known).share == 0
    assert fit_of([head], known).share == 1, "alone it is all that is trained"
    assert "100 % of the parameters)" in fit_of([head], known).describe()


def test_shares_are_not_rounded_up():
    fit = fit_of([layer("a", (9999,)), layer("x", (1,), "new")], [layer("a", (9999,))])
    assert "99.9 % of the parameters" in fit.describe() and fit.share < 1
    assert Fit(()).share == 1
    assert L3RS([("weight", nn.Parameter(torch.empty(0)))]).fit.share == 1, "what holds no number fits, too"


def test_known_by_role_every_model_of_these_roles_fits():
    network = by_role(tiny_vit(), features=("grad_norm", STRUCTURE))
    other = nn.Sequential(nn.Linear(40, 40), nn.LayerNorm(40))
    optimizer = L3RS(tiny_vit(), network=network, num_training_steps=2)
    assert optimizer.fit.counts == {"role": len(list(tiny_vit().parameters()))} and optimizer.fit.is_full
    strange = measure_fit(describe_layers(other.named_parameters()), network.config)
    assert strange.counts == {"role": 2, "unknown": 2}  # a square layer's role is new


def test_a_role_alone_is_not_enough_where_steps_depend_on_the_width():
    assert measure_fit(
        describe_layers(tiny_vit().named_parameters()), by_role(tiny_vit(), "rms").config
    ).counts.keys() == {"unknown"}


def test_what_is_made_for_a_model_fits_it(caplog):
    model = tiny_resnet()
    model.resnet.embedder.requires_grad_(False)
    model.classifier[1] = nn.Linear(16, 9)
    with caplog.at_level(logging.INFO, logger="hf_l3rs"):
        for optimizer in (
            L3RS(model),
            L3RS(network=trained_network(tiny_resnet())).bind(model),
            L3RS(model, network=trained_network(tiny_resnet()), minimum_fit=1),
        ):
            assert optimizer.fit.is_full and optimizer.fit.share == 1
            assert copy.deepcopy(optimizer).fit == pickle.loads(pickle.dumps(optimizer)).fit == optimizer.fit
    assert not caplog.records
    assert L3RS(network=trained_network(model)).fit is None


def test_a_refusal_changes_nothing(caplog):
    optimizer = L3RS(tiny_vit(), network=trained_network(tiny_vit()), num_training_steps=3)
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    before, params = copy.deepcopy(optimizer.state_dict()), optimizer.param_groups[0]["params"]
    with pytest.raises(BindingError, match="minimum_fit"):
        optimizer.bind(tiny_resnet())
    assert_same(optimizer.state_dict(), before)
    assert optimizer.param_groups[0]["params"] is params and optimizer.fit.is_full
    unbound = L3RS(network=trained_network(tiny_vit()))
    with pytest.raises(BindingError, match="minimum_fit"):
        unbound.bind(tiny_resnet())
    assert not unbound.is_bound and unbound.bind(tiny_vit()).fit.is_full
    assert not caplog.records, "the error says it all"


def test_groups_that_make_it_another_model_are_refused_before_anything_moves():
    """Only at the step are all groups known."""
    model, stranger = tiny_vit(), tiny_resnet()
    late = L3RS(network=trained_network(model), num_training_steps=2)
    late.add_param_group({"params": stranger})
    joined = L3RS(model, network=trained_network(model), num_training_steps=2)
    joined.add_param_group({"params": [(f"other.{name}", param) for name, param in stranger.named_parameters()]})
    before = copy.deepcopy(stranger.state_dict())
    for param in (*model.parameters(), *stranger.parameters()):
        param.grad = torch.ones_like(param)
    for optimizer in (late, joined):
        assert optimizer.fit.share < 0.5
        with pytest.raises(BindingError, match="less than minimum_fit=0.5; use l3rs-vision"):
            optimizer.step(1.0)
        assert not optimizer.state and optimizer.param_groups[0]["step"] == 0
    assert_same(stranger.state_dict(), before)
    by_parts = L3RS(network=trained_network(model), num_training_steps=2)
    for name, param in reversed(list(model.named_parameters())):
        by_parts.add_param_group({"params": [(name, param)]})
    by_parts.step(1.0)
    assert by_parts.fit.is_full


def with_lora(*modules):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(tiny_vit(), peft.LoraConfig(r=4, target_modules=list(modules)))


@pytest.mark.parametrize("start", ["l3rs-universal-start", "l3rs-vision", "l3rs-vit-tiny-fashion"])
def test_a_refusal_advises_what_works(start):
    """l3rs-vision is named only where it fits, and meta-training for LoRA only for what it adapts."""
    for model, vision, trainable in (
        (tiny_resnet(), True, None),
        (with_lora("q_proj", "v_proj", "query", "value"), False, "trainable: lora:4"),
        (with_lora("fc1", "fc2"), False, None),
        (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), False, None),
    ):
        optimizer = L3RS.from_pretrained(start, minimum_fit=0).bind(model)
        if optimizer.fit.share >= 0.5:
            assert vision and start != "l3rs-vit-tiny-fashion"
            continue
        with pytest.raises(BindingError, match="minimum_fit=0 to go on") as caught:
            L3RS.from_pretrained(start).bind(model)
        message = str(caught.value)
        assert ("l3rs-vision" in message) == vision and message.count("trainable") == (trainable is not None)
        assert trainable is None or trainable in message
        if vision:
            assert L3RS.from_pretrained("l3rs-vision").bind(model).is_bound
