"""A state that is damaged, or of something else, is refused when it is loaded, not inside a later step."""

import copy

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError, ConfigError, L3RSError
from tests.tiny import assert_same, trained_network


def make_optimizer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    return model, L3RS(model, network=trained_network(model), num_training_steps=5)


@pytest.fixture
def state_dict():
    model, optimizer = make_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1.0)
    return copy.deepcopy(optimizer.state_dict())


def set_value(state_dict, where, value):
    *path, last = where
    for key in path:
        state_dict = state_dict[key]
    if value is KeyError:
        del state_dict[last]
    else:
        state_dict[last] = value


DAMAGE = {
    "missing buffer": (("state", 0, "adam_exp_avg"), KeyError, BindingError, r"'0.weight'.*keeps"),
    "surplus buffer": (("state", 0, "max_exp_avg"), torch.zeros(6, 4), BindingError, "max_exp_avg"),
    "misshapen buffer": (("state", 1, "adam_exp_avg_sq"), torch.zeros(7), BindingError, r"\(7,\).*\(6,\)"),
    "buffer of NaN": (("state", 2, "adam_exp_avg"), torch.full((6,), torch.nan), BindingError, "not numbers"),
    "infinite buffer": (("state", 2, "adam_exp_avg_sq"), torch.full((6,), torch.inf), BindingError, "not numbers"),
    "misshapen averages": (("state", 0, "ema"), torch.zeros(3, 3), BindingError, r"ema .*\(3, 3\)"),
    "averages of NaN": (("state", 0, "ema"), torch.full((4, 3), torch.nan), BindingError, "ema .*not numbers"),
    "step of -5": (("state", 0, "step"), torch.tensor(-5.0), BindingError, "step -5"),
    "a number for a tensor": (("state", 0, "ema"), 3.0, BindingError, "3.0"),
    "NaN lr": (("param_groups", 0, "lr"), float("nan"), ConfigError, "lr is"),
    "negative lr": (("param_groups", 0, "lr"), -1.0, ConfigError, "lr is"),
    "group step of -5": (("param_groups", 0, "step"), -5, BindingError, "step must be"),
    "group step of 1.5": (("param_groups", 0, "step"), 1.5, BindingError, "step must be"),
    "no plan": (("param_groups", 0, "num_training_steps"), KeyError, BindingError, "lacks num_training_steps"),
    "plan of 0": (("param_groups", 0, "num_training_steps"), 0, ConfigError, "num_training_steps"),
    "no param_groups": (("param_groups",), KeyError, BindingError, "state and param_groups"),
    "no state": (("state",), KeyError, BindingError, "state and param_groups"),
    "param_groups of another type": (("param_groups",), {}, BindingError, "state and param_groups"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused(name, state_dict):
    where, value, kind, message = DAMAGE[name]
    set_value(state_dict, where, value)
    model, optimizer = make_optimizer()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(kind, match=message) as caught:
        optimizer.load_state_dict(state_dict)
    assert isinstance(caught.value, L3RSError) and "\n" not in str(caught.value)
    assert_same(optimizer.state_dict(), before)


def test_what_is_no_state_is_refused():
    for value in (None, [], "state"):
        with pytest.raises(BindingError, match="state and param_groups"):
            make_optimizer()[1].load_state_dict(value)


def test_a_whole_state_and_one_with_absent_layers_load(state_dict):
    make_optimizer()[1].load_state_dict(state_dict)
    del state_dict["state"][3]  # a layer that never had a gradient
    make_optimizer()[1].load_state_dict(state_dict)
