"""States of other models are refused when they are given, not when the first task is trained."""

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.model import RANDOM, InitialStates, head_modules
from tests.meta.problems import TinyClassifier, make_model
from tests.tiny import tiny_resnet, tiny_vit


def test_heads():
    assert head_modules(tiny_resnet()) == {"classifier.1"}
    assert head_modules(tiny_vit()) == head_modules(make_model()) == {"classifier"}


def test_states_that_do_not_fit():
    model = make_model()
    other = TinyClassifier(num_labels=5).state_dict()
    partial = {"encoder.weight": model.encoder.weight}
    for state in (other, partial, {}, "randm"):
        with pytest.raises(ConfigError, match="Initial state 2 of 2 does not fit the base model"):
            InitialStates(model, [model.state_dict(), state])
    InitialStates(model, [model.state_dict(), RANDOM])


def test_a_model_without_a_head_has_none_to_renew():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="its head cannot be renewed"):
        InitialStates(model, [model.state_dict()])
    with pytest.raises(ConfigError, match="no initial state"):
        InitialStates(model, [])


def test_random_weights_are_the_same_for_a_seed_and_nothing_of_the_model_is_left_in_them():
    """Batch norm's statistics were: the classes' own initialisation leaves them as pretraining made them."""
    model = tiny_resnet()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(3)
    states = InitialStates(model, [RANDOM])
    one, again, other = states.draw(1), states.draw(1), states.draw(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["classifier.1.weight"], other["classifier.1.weight"])
    assert not [name for name, tensor in model.state_dict().items() if torch.equal(tensor, one[name])]
    running = {name: tensor for name, tensor in one.items() if "running" in name}
    assert running and all(bool((tensor == float(name.endswith("var"))).all()) for name, tensor in running.items())
