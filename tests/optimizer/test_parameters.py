"""What L3RS accepts to train: named parameters in groups, and for how long."""

import math

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError, ConfigError
from tests.tiny import trained_network


def make_model():
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def make_optimizer(num_training_steps=20):
    model = make_model()
    return model, L3RS(model, network=trained_network(model), num_training_steps=num_training_steps)


def assert_one_sentence(error, *words):
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf, "1", True, None])
def test_lr_is_validated(lr):
    with pytest.raises(ConfigError, match="lr is a multiplier"):
        L3RS(make_model(), lr=lr)
    with pytest.raises(ConfigError, match="lr is a multiplier"):
        L3RS([{"params": make_model(), "lr": lr}])


@pytest.mark.parametrize("steps", [0, -1, 1.5, "10", True])
def test_num_training_steps_is_validated(steps):
    for call in (
        lambda: L3RS(make_model(), num_training_steps=steps),
        lambda: L3RS(make_model()).bind(make_model(), num_training_steps=steps),
        lambda: L3RS([{"params": make_model(), "num_training_steps": steps}]),
    ):
        with pytest.raises(ConfigError, match="num_training_steps must be a whole number"):
            call()


def test_unknown_plan_is_refused_before_anything_changes():
    model, optimizer = make_optimizer(num_training_steps=None)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    with pytest.raises(BindingError, match="how many steps"):
        optimizer.step(1.0)
    assert optimizer.param_groups[0]["step"] == 0 and not optimizer.state


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L3RS(make_model().parameters()), "names of the parameters"),
        (lambda: L3RS([{"params": list(make_model().parameters())}]), "names of the parameters"),
        (lambda: L3RS(network=trained_network(make_model())).bind(make_model().requires_grad_(False)), "frozen"),
        (lambda: L3RS(network=trained_network(make_model())).step(), "no parameters yet"),
        (lambda: L3RS([{"params": part} for part in (nn.Linear(2, 2), nn.Linear(2, 3))]), "Two parameters are named"),
    ],
)
def test_what_does_not_go_together_is_refused(make, words):
    """Invariant 10: one sentence that names the way out."""
    with pytest.raises(BindingError) as caught:
        make()
    assert_one_sentence(caught, words)
