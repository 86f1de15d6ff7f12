"""What is trained: bound early or late, by model or by names, with the plan that was asked for last."""

import copy

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError
from tests.tiny import trained_network


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def make_state(model, num_training_steps):
    optimizer = L3RS(model, network=trained_network(model), num_training_steps=num_training_steps)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    return copy.deepcopy(optimizer.state_dict())


def test_the_plan_of_bind_wins_over_that_of_a_waiting_state():
    model = make_model()
    for asked, expected in ((1000, 1000), (None, 5)):
        optimizer = L3RS(network=trained_network(model))
        optimizer.load_state_dict(make_state(make_model(), num_training_steps=5))
        optimizer.bind(model, num_training_steps=asked)
        assert optimizer.param_groups[0]["num_training_steps"] == expected
        assert optimizer.param_groups[0]["step"] == 1


def test_an_optimizer_follows_the_model_that_it_was_given_in_whatever_way():
    model = make_model()
    network = trained_network(model)
    assert L3RS(model, network=network).follows_model
    assert L3RS(network=network).bind(model).follows_model
    assert not L3RS(model.named_parameters(), network=network).follows_model
    joined = L3RS(model[0], network=network, minimum_fit=0)
    joined.add_param_group({"params": [("other.weight", nn.Parameter(torch.ones(2, 2)))]})
    assert not joined.follows_model, "what is trained is now the caller's choice"


def test_a_model_without_trainable_parameters_is_refused():
    model = make_model().requires_grad_(False)
    with pytest.raises(BindingError, match="frozen"):
        L3RS(network=trained_network(make_model())).bind(model)


def test_a_group_may_be_of_something_beside_the_model():
    model, extra = make_model(), nn.Parameter(torch.ones(2, 2))
    optimizer = L3RS(model, num_training_steps=2)
    optimizer.add_param_group({"params": [("other.weight", extra)]})
    assert [each.layer.name for each in optimizer.fit.layers][-1] == "other.weight"
    for param in (*model.parameters(), extra):
        param.grad = torch.ones_like(param)
    optimizer.step(1.0)
    assert not torch.equal(extra, torch.ones(2, 2))
