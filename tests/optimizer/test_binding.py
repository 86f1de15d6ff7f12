"""Parameters and their state as they are now: moved, cast, of low precision, or with new meta-weights."""

import logging

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS, L3RSConfig, describe_layers
from hf_l3rs.errors import BindingError
from tests.tiny import assert_same, trained_network


NUM_STEPS = 50


def make_model(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).to(dtype)


def make_optimizer(model, **options):
    network = trained_network(make_model(), base_step=options.pop("base_step", 5e-3))
    return L3RS(model, network=network, num_training_steps=NUM_STEPS, **options)


def train(model, optimizer, steps):
    for k in steps:
        generator = torch.Generator().manual_seed(k)
        for param in model.parameters():
            param.grad = (0.1 * torch.randn(param.shape, generator=generator)).to(param.dtype)
        optimizer.step(1.0 / (k + 1))


def test_a_model_that_is_cast_after_a_step_goes_on():
    model = make_model()
    optimizer = make_optimizer(model)
    train(model, optimizer, range(3))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        model.to(dtype)
        before = [param.detach().clone() for param in model.parameters()]
        train(model, optimizer, range(3, 6))
        assert not any(torch.equal(one, two) for one, two in zip(model.parameters(), before))
        assert all(param.dtype == dtype and param.isfinite().all() for param in model.parameters())
    state = optimizer.state[model[0].weight]
    assert state["adam_exp_avg"].dtype == torch.float64 and state["step"] == 12


def test_a_step_does_not_depend_on_autocast():
    ends = []
    for enabled in (False, True):
        model = make_model()
        optimizer = make_optimizer(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            train(model, optimizer, range(3))
        ends.append(list(model.parameters()))
    assert_same(*ends)


def test_meta_weights_that_change_after_a_step_are_used():
    model, other = make_model(), make_model()
    optimizer, fresh = make_optimizer(model), make_optimizer(other)
    train(model, optimizer, range(2))
    train(other, fresh, range(2))
    vector = optimizer.network.to_vector() + 0.1
    optimizer.network.load_vector(vector)
    train(model, optimizer, range(2, 4))
    state = fresh.state_dict()
    fresh.network.load_vector(vector)
    again = L3RS(other, network=fresh.network, num_training_steps=NUM_STEPS)
    state["param_groups"][0]["fingerprint"] = fresh.network.fingerprint()
    again.load_state_dict(state)
    train(other, again, range(2, 4))
    assert_same(list(model.parameters()), list(other.parameters()))
    assert optimizer.state_dict()["param_groups"][0]["fingerprint"] == optimizer.network.fingerprint()


def share_of_other_elements(first, second):
    pairs = zip(first.parameters(), second.parameters())
    return torch.cat([(one != two).flatten() for one, two in pairs]).float().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_copies_keep_small_updates(dtype):
    """With them a run is that of float32 parameters, rounded; without, updates below the rounding are lost."""
    exact, plain, kept = make_model(dtype).float(), make_model(dtype), make_model(dtype)
    for model, options in ((exact, {}), (plain, {}), (kept, {"float32_copy": True})):
        train(model, make_optimizer(model, base_step=1e-5, **options), range(NUM_STEPS))
    assert share_of_other_elements(exact.to(dtype), kept) == 0
    assert share_of_other_elements(exact, plain) > 0.05


def test_float32_copies_resume_and_follow_the_parameter():
    """Invariant 4; and a parameter that somebody else has set since is taken as it is."""
    model, twin = make_model(torch.bfloat16), make_model(torch.bfloat16)
    optimizer = make_optimizer(model, float32_copy=True)
    train(model, optimizer, range(4))
    twin.load_state_dict(model.state_dict())
    other = make_optimizer(twin, float32_copy=True)
    other.load_state_dict(optimizer.state_dict())
    for one, some in ((model, optimizer), (twin, other)):
        train(one, some, range(4, 8))
    assert_same(list(model.parameters()), list(twin.parameters()))
    assert_same(optimizer.state_dict(), other.state_dict())
    with torch.no_grad():
        model[0].weight.fill_(8.0)
    train(model, optimizer, [8])
    assert (model[0].weight - 8.0).abs().max() < 1.0
    with pytest.raises(BindingError, match="float32_copy=True"):
        make_optimizer(twin).load_state_dict(optimizer.state_dict())


def test_low_precision_is_warned_of_once_with_the_way_out(caplog):
    with caplog.at_level(logging.WARNING, logger="hf_l3rs"):
        for options in ({}, {"float32_copy": True}):
            model = make_model(torch.bfloat16)
            train(model, make_optimizer(model, **options), range(3))
    (record,) = caplog.records
    assert "float32_copy=True" in record.getMessage()


def test_parameters_on_several_devices_are_stepped_device_by_device():
    """As `device_map` spreads a model: what is on one device moves as if the rest were not there."""
    config = L3RSConfig(describe_layers([("a", torch.ones(2)), ("b", torch.ones(2))]))
    ends = []
    for others in ({}, {"b": nn.Parameter(torch.ones(2, device="meta"))}):
        params = {"a": nn.Parameter(torch.ones(2)), **others}
        optimizer = L3RS(params.items(), config, num_training_steps=20)
        for _ in range(2):
            for param in params.values():
                param.grad = torch.ones_like(param)
            optimizer.step(1.0)
        ends.append(params["a"])
    assert torch.equal(*ends) and not torch.equal(ends[0], torch.ones(2))
