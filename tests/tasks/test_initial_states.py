"""States of other models are refused when they are given, not when the first task is trained."""

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.initial_states import RANDOM, InitialStates, head_modules
from tests.meta.problems import TinyClassifier, make_model
from tests.tiny import tiny_resnet, tiny_vit


def test_heads():
    assert head_modules(tiny_resnet()) == {"classifier.1"}
    assert head_modules(tiny_vit()) == head_modules(make_model()) == {"classifier"}


@pytest.mark.parametrize("new_head", [True, False])
def test_states_that_do_not_fit(new_head):
    model = make_model()
    other = TinyClassifier(num_labels=5).state_dict()
    partial = {"encoder.weight": model.encoder.weight}
    for state in (other, partial, {}, "randm"):
        with pytest.raises(ConfigError, match="Initial state 2 of 2 does not fit the base model"):
            InitialStates(model, [model.state_dict(), state], new_head)
    InitialStates(model, [model.state_dict(), RANDOM], new_head)


def test_a_model_without_a_head_has_none_to_renew():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="its head cannot be renewed"):
        InitialStates(model, [model.state_dict()])
    with pytest.raises(ConfigError, match="no initial state"):
        InitialStates(model, [])
