"""The step: torch's semantics, gradients only read, absent ones skipped, and refusals before training."""

import logging
import pickle

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.optimizer.directions import DIRECTIONS
from tests.tiny import trained_network


ALL_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def make_optimizer(model=None, num_training_steps=20, **config):
    model = make_model() if model is None else model
    return model, L3RS(model, network=trained_network(model, **config), num_training_steps=num_training_steps)


def set_gradients(params, seed=0, scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = (scale * torch.randn(param.shape, generator=generator)).to(param.dtype)


def snapshot(params):
    return [param.detach().clone() for param in params]


def same(left, right):
    return all(torch.equal(one, other) for one, other in zip(left, right))


def take_steps(optimizer, params, num_steps=3, start=0):
    for k in range(start, start + num_steps):
        set_gradients(params, k)
        optimizer.step(1.0 + k)


def losses_seen(optimizer):
    return [float(state["ema"][0, 0]) for state in optimizer.state.values()]


def test_closure_has_torchs_meaning():
    """Invariant 1: the closure runs once, with gradients enabled, before the step, and its loss is returned."""
    model, optimizer = make_optimizer()
    before, calls = snapshot(model.parameters()), []

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).square().mean()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True] and isinstance(loss, torch.Tensor) and loss.requires_grad
    assert not same(before, model.parameters())
    assert all(value != 0 for value in losses_seen(optimizer))


@pytest.mark.parametrize("loss", [2.0, torch.tensor(2.0), torch.tensor([2.0], requires_grad=True)], ids=type)
def test_loss_in_place_of_the_closure(loss):
    """Invariant 1: a tensor or float is the loss, as a closure that returns it would tell."""
    ends = []
    for given in (loss, lambda: loss, None):
        model, optimizer = make_optimizer()
        set_gradients(model.parameters())
        if given is None:
            optimizer.observe_loss(loss)
        assert optimizer.step(given) is (None if given is None else loss)
        ends.append(snapshot(model.parameters()))
    assert same(ends[0], ends[1]) and same(ends[0], ends[2])


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_gradients_are_never_written(dtype):
    """Invariant 1."""
    model, optimizer = make_optimizer(make_model().to(dtype), directions=tuple(DIRECTIONS))
    for k in range(3):
        set_gradients(model.parameters(), k)
        grads = [param.grad for param in model.parameters()]
        before = snapshot(grads)
        optimizer.step(1.0)
        assert all(param.grad is grad for param, grad in zip(model.parameters(), grads))
        assert same(before, grads)


def test_no_gradients_at_all():
    model, optimizer = make_optimizer()
    before = snapshot(model.parameters())
    optimizer.step(1.0)
    assert same(before, model.parameters()) and not optimizer.state
    assert optimizer.param_groups[0]["step"] == 1  # the run's clock goes on


def test_order_of_layers_does_not_matter():
    """Each layer's update is its own, wherever it stands in the list."""
    ends = []
    for order in (1, -1):
        model = make_model().double()
        network = trained_network(model)
        optimizer = L3RS(list(model.named_parameters())[::order], network=network, num_training_steps=20)
        take_steps(optimizer, list(model.parameters()))
        ends.append(snapshot(model.parameters()))
    for left, right in zip(*ends):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def named(model, *prefixes):
    return [(name, param) for name, param in model.named_parameters() if name.startswith(prefixes)]


def test_groups_have_their_own_rates():
    """An empty group is allowed; lr multiplies the update of its own group alone."""
    whole, reference = make_optimizer()
    model = make_model()
    groups = [
        {"params": named(model, "0."), "lr": 0.0},
        {"params": []},
        {"params": named(model, "1."), "lr": 0.5},
        {"params": named(model, "2.")},
    ]
    optimizer = L3RS(groups, network=trained_network(model), num_training_steps=20)
    before = snapshot(model.parameters())
    for some, params in ((reference, whole.parameters()), (optimizer, model.parameters())):
        set_gradients(params)
        some.step(1.0)
    for (name, param), old, other in zip(model.named_parameters(), before, whole.parameters()):
        rate = {"0": 0.0, "1": 0.5, "2": 1.0}[name[0]]
        torch.testing.assert_close(param - old, rate * (other - old), rtol=1e-4, atol=1e-7)
    assert [group["step"] for group in optimizer.param_groups] == [1, 1, 1, 1]


def test_add_param_group_joins_the_run():
    model = make_model()
    optimizer = L3RS(named(model, "2."), network=trained_network(model)).bind(named(model, "2."), 20)
    take_steps(optimizer, list(model.parameters()))
    before = snapshot(model.parameters())
    optimizer.add_param_group({"params": named(model, "module.0.", "0.", "1."), "lr": 0.5})
    assert [(group["step"], group["num_training_steps"]) for group in optimizer.param_groups] == [(3, 20), (3, 20)]
    take_steps(optimizer, list(model.parameters()))
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters()))
    assert optimizer.state[model[0].weight]["step"] == 3 and optimizer.state[model[2].weight]["step"] == 6


def odd_parameters(dtype):
    """0-dimensional, of one element, of none, transposed, sliced, channels-last."""
    torch.manual_seed(0)
    tensors = {
        "scalar": torch.randn(()),
        "single.weight": torch.randn(1),
        "empty.weight": torch.randn(0, 3),
        "transposed.weight": torch.randn(3, 4).t(),
        "sliced.weight": torch.randn(4, 6),
        "channels_last.weight": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    }
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    tensors["sliced.weight"] = tensors["sliced.weight"][:, ::2]
    return {name: nn.Parameter(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_odd_shapes_and_strides(dtype):
    params = odd_parameters(dtype)
    config = L3RSConfig(describe_layers(params.items()), directions=tuple(DIRECTIONS), base_step=0.1)
    optimizer = L3RS(params.items(), config, num_training_steps=20)
    before = snapshot(params.values())
    take_steps(optimizer, params.values())
    for (name, param), old in zip(params.items(), before):
        assert param.isfinite().all() and param.dtype == dtype
        assert name == "empty.weight" or not torch.equal(param, old)
    assert params["sliced.weight"].stride() == (6, 2)
    assert not params["transposed.weight"].is_contiguous()


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_step_that_is_the_identity(direction, dtype):
    """Invariant 2: with lr = 0, or on zero gradients at first, no bit of a parameter changes, and all is finite."""
    for lr, scale in ((0.0, 0.1), (0.0, 0.0), (1.0, 0.0)):
        params = odd_parameters(dtype)
        config = L3RSConfig(describe_layers(params.items()), directions=(direction,))
        optimizer = L3RS(params.items(), config, lr=lr, num_training_steps=20)
        before = snapshot(params.values())
        set_gradients(params.values(), scale=scale)
        optimizer.step(1.0)
        assert same(before, params.values())
        optimizer.param_groups[0]["lr"] = 1.0
        optimizer.step(1.0)
        assert all(param.isfinite().all() for param in params.values())
        assert all(value.isfinite().all() for state in optimizer.state.values() for value in state.values())


def test_tied_weights_are_trained_once():
    model = make_model()
    model.append(nn.Linear(6, 3))
    model[3].weight = model[2].weight
    _, optimizer = make_optimizer(model)
    assert len(optimizer.param_groups[0]["params"]) == 7
    take_steps(optimizer, optimizer.param_groups[0]["params"], 1)
    assert optimizer.state[model[3].weight]["step"] == 1


def test_binding_again():
    """To the same parameters it keeps the state; to others, as after unfreezing, it drops it."""
    model = make_model()
    model[0].requires_grad_(False)
    optimizer = L3RS(network=trained_network(model)).bind(model, num_training_steps=20)
    take_steps(optimizer, optimizer.param_groups[0]["params"])
    optimizer.bind(model, num_training_steps=30)
    assert len(optimizer.state) == 4 and optimizer.param_groups[0]["num_training_steps"] == 30
    model[0].requires_grad_(True)
    optimizer.bind(model)
    assert not optimizer.state and len(optimizer.param_groups[0]["params"]) == 6
    take_steps(optimizer, optimizer.param_groups[0]["params"])


def test_reset_starts_over():
    model, optimizer = make_optimizer()
    start = snapshot(model.parameters())
    take_steps(optimizer, list(model.parameters()))
    first = snapshot(model.parameters())
    optimizer.observe_loss(100.0)
    optimizer.reset()
    assert optimizer.param_groups[0]["step"] == 0 and not optimizer.state
    for param, old in zip(model.parameters(), start):
        param.data.copy_(old)
    take_steps(optimizer, list(model.parameters()))
    assert same(first, model.parameters())


@pytest.mark.parametrize(
    ("make", "kwargs"),
    [
        (torch.optim.lr_scheduler.LambdaLR, {"lr_lambda": lambda k: min(1.0, k / 2)}),
        (torch.optim.lr_scheduler.OneCycleLR, {"max_lr": 1.0, "total_steps": 6, "cycle_momentum": False}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_schedulers(make, kwargs):
    """A warm-up from lr = 0 included."""
    model, optimizer = make_optimizer()
    scheduler = make(optimizer, **kwargs)
    for k in range(5):
        before = snapshot(model.parameters())
        take_steps(optimizer, list(model.parameters()), 1, start=k)
        assert same(before, model.parameters()) == (optimizer.param_groups[0]["lr"] == 0)
        scheduler.step()
    assert all(param.isfinite().all() for param in model.parameters())


def test_warnings_come_once(caplog):
    model = make_model()
    model.append(nn.Bilinear(3, 3, 2))
    network = trained_network(make_model())
    with caplog.at_level(logging.WARNING, logger="hf_l3rs"):
        optimizer = L3RS(model, network=network, num_training_steps=20, minimum_fit=0)
        for k in range(3):
            set_gradients(model.parameters(), k)
            optimizer.step()
        twin = pickle.loads(pickle.dumps(optimizer))
        twin.load_state_dict(optimizer.state_dict())
        take_steps(twin, twin.param_groups[0]["params"])
    misfit, unseen = [record.getMessage() for record in caplog.records]
    assert "fits 6 of 8 layers" in misfit and misfit.endswith("what does not fit is 3.weight and 3.bias.")
    assert "without it" in unseen


def test_no_warning_where_all_is_well(caplog):
    """Invariant 8; a loss that no feature needs, or an idle step at lr = 0, is nothing to warn of."""
    for config, lr, loss in (({}, 1.0, 1.0), ({"features": ("grad_norm",)}, 1.0, None), ({}, 0.0, None)):
        model, optimizer = make_optimizer(**config)
        optimizer.param_groups[0]["lr"] = lr
        set_gradients(model.parameters())
        optimizer.step(loss)
    assert not caplog.records


def test_untrained_for_any_model():
    model = make_model()
    optimizer = L3RS(model, num_training_steps=20)
    assert [layer.name for layer in optimizer.config.layers] == [name for name, _ in model.named_parameters()]
    assert torch.equal(optimizer.network.to_vector(), L3RSNetwork(optimizer.config).to_vector())
