"""The fast optimizer is the slow one that reads like the paper, and torch's own where the network decides nothing."""

import itertools
import math

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.optimizer.config import FEATURES, STEP_REFERENCES, STRUCTURE
from hf_l3rs.optimizer.directions import DIRECTIONS
from hf_l3rs.optimizer.features import CEILING, EMA_CHANNELS, FLOOR
from tests.reference import ReferenceL3RS
from tests.tiny import trained_network


NUM_STEPS = 30
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}

# Which gradients are absent at step k.
PATTERNS = {
    "all": lambda k, name: False,
    "frozen": lambda k, name: name == "0.weight",
    "alternating": lambda k, name: name == "0.bias" and k % 2 == 0,
    "late": lambda k, name: name.startswith("3.") and k < 10,
}


def make_model(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(1, 4), nn.Flatten(), nn.Linear(16, 4)).to(dtype)


def set_gradients(k, models, dtype, is_absent=PATTERNS["all"], scale=0.1):
    """The same random gradients for all models; some parameters get none, and the first step's are zero for one."""
    generator = torch.Generator().manual_seed(k)
    for (name, theta), *others in zip(*(model.named_parameters() for model in models)):
        g = scale * torch.randn(theta.shape, generator=generator, dtype=torch.float64).to(dtype)
        if k == 0 and name == "1.bias":
            g.zero_()
        for parameter in (theta, *(other for _, other in others)):
            parameter.grad = None if is_absent(k, name) else g.clone()
    return torch.rand((), generator=generator, dtype=torch.float64).to(dtype)


def compare(optimizer, reference, dtype, scale):
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for theta, layer in zip(params, reference.layers):
        torch.testing.assert_close(theta, layer.theta, **tolerance)
        state = optimizer.state.get(theta)
        if not state:
            assert layer.t == 0
            continue
        assert state["step"] == layer.t
        averages = torch.tensor([layer.a[channel] for channel in EMA_CHANNELS], dtype=layer.dtype)
        # Averaged logarithms of float32 norms differ in their last digits.
        torch.testing.assert_close(state["ema"], averages, rtol=tolerance["rtol"], atol=2 * tolerance["atol"])
        moments = {
            "adam_exp_avg": (layer.m, scale),
            "adam_exp_avg_sq": (layer.v, scale**2),
            "muon_exp_avg": (layer.u, scale),
        }
        for name, (value, size) in moments.items():
            if name in state:  # gradients of both signs cancel, which leaves errors of their own size
                torch.testing.assert_close(state[name], value, rtol=tolerance["rtol"], atol=tolerance["atol"] * size)


def run_both(dtype, is_absent=PATTERNS["all"], losses=True, scale=0.1, **config):
    models = make_model(dtype), make_model(dtype)
    network = trained_network(models[0], **config)
    optimizer = L3RS(models[0], network=network, num_training_steps=NUM_STEPS - 5)
    reference = ReferenceL3RS(models[1].named_parameters(), network, NUM_STEPS - 5)
    start = [theta.detach().clone() for theta in models[0].parameters()]
    for k in range(NUM_STEPS):
        loss = set_gradients(k, models, dtype, is_absent, scale)
        optimizer.param_groups[0]["lr"] = reference.lr = min(1.0, k / 5)  # a warm-up from 0
        optimizer.step(loss if losses and k % 7 != 3 else None)
        reference.step(loss if losses and k % 7 != 3 else None)
        if k % 10 == 0:
            compare(optimizer, reference, dtype, scale)
    compare(optimizer, reference, dtype, scale)
    return start, models[0]


DIRECTION_SETS = [directions for size in (1, 2) for directions in itertools.combinations(DIRECTIONS, size)] + [
    tuple(DIRECTIONS),
    tuple(reversed(DIRECTIONS)),
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("step_reference", STEP_REFERENCES)
@pytest.mark.parametrize("directions", DIRECTION_SETS, ids="-".join)
def test_equals_the_reference(directions, step_reference, dtype):
    """Invariant 3: parameters and state are the reference's to 1e-6, and to 1e-12 in float64."""
    start, model = run_both(dtype, directions=directions, step_reference=step_reference)
    assert all((theta - old).abs().max() > 1e-4 for theta, old in zip(model.parameters(), start))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("step_reference", STEP_REFERENCES)
def test_equals_the_reference_with_structure(step_reference, dtype):
    run_both(dtype, step_reference=step_reference, features=(*FEATURES, STRUCTURE))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("step_reference", STEP_REFERENCES)
@pytest.mark.parametrize("exponents", [(0.75, 0.0), (0.0, 0.15), (0.75, 0.15)], ids=str)
def test_equals_the_reference_with_steps_that_shrink_with_size(exponents, step_reference, dtype, monkeypatch):
    """The model has a matrix of 16 inputs and 152 parameters; with the constants as they are it would be small."""
    monkeypatch.setattr("hf_l3rs.optimizer.step.REFERENCE_FAN_IN", 4)
    monkeypatch.setattr("hf_l3rs.optimizer.step.REFERENCE_SIZE", 20)
    monkeypatch.setattr("tests.reference.FAN_IN", 4)
    monkeypatch.setattr("tests.reference.SIZE", 20)
    width, size = exponents
    run_both(dtype, step_reference=step_reference, width_exponent=width, size_exponent=size)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_equals_the_reference_where_gradients_are_absent(pattern, dtype):
    """Invariants 1 and 3: a layer without gradient is left alone and counts no step."""
    run_both(dtype, pattern, directions=tuple(DIRECTIONS))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("trained_steps", [4, 5])
def test_equals_the_reference_in_a_run_far_beyond_those_of_meta_training(trained_steps, dtype):
    """The run is planned for 25 steps: more than five times 4, but not more than five times 5."""
    run_both(dtype, directions=("muon", "sgd"), anneal_long_runs=True, num_training_steps=trained_steps)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_the_reference_at_the_bounds_of_the_features(dtype, scale):
    """Invariant 3, where norms are below the features' floor or above their ceiling."""
    assert not FLOOR < 1e-12 < CEILING < 1e6
    run_both(dtype, scale=scale, directions=tuple(DIRECTIONS), adam_eps=1e-3)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_the_reference_where_gradients_and_losses_are_not_numbers(dtype):
    """Invariant 3; the first gradient of a layer included, before it has averaged anything."""
    models = make_model(dtype), make_model(dtype)
    network = trained_network(models[0], directions=tuple(DIRECTIONS))
    optimizer = L3RS(models[0], network=network, num_training_steps=NUM_STEPS)
    reference = ReferenceL3RS(models[1].named_parameters(), network, NUM_STEPS)
    broken = {0: (1, math.nan), 4: (0, math.inf), 5: (3, 1e30 if dtype == torch.float32 else 1e300)}
    for k in range(10):
        loss = set_gradients(k, models, dtype)
        for model in models:
            index, value = broken.get(k, (None, None))
            if index is not None:
                list(model.parameters())[index].grad.view(-1)[0] = value
        for one in (optimizer, reference):
            one.step(torch.full_like(loss, math.nan) if k == 7 else loss)
        compare(optimizer, reference, dtype, 0.1)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_the_reference_without_loss(dtype):
    run_both(dtype, losses=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_equals_the_reference_in_low_precision(dtype):
    """Invariants 3 and 4: state and update are float32, and only the new parameter is rounded."""
    models = make_model(dtype), make_model(dtype)
    network = trained_network(models[0])
    optimizer = L3RS(models[0], network=network, num_training_steps=NUM_STEPS)
    reference = ReferenceL3RS(models[1].named_parameters(), network, NUM_STEPS)
    differing = total = 0
    for k in range(NUM_STEPS):
        loss = set_gradients(k, models, dtype)
        optimizer.step(loss)
        reference.step(loss)
        for theta, layer in zip(models[0].parameters(), reference.layers):
            differing += int((theta != layer.theta).sum())
            total += theta.numel()
            torch.testing.assert_close(theta, layer.theta, rtol=2 * torch.finfo(dtype).eps, atol=1e-4)
            torch.testing.assert_close(optimizer.state[theta]["adam_exp_avg"], layer.m, rtol=1e-6, atol=1e-6)
            layer.theta.data.copy_(theta.data)  # so that a rounding the other way is not carried along
    assert differing <= 0.001 * total


def constant_network(model, direction):
    """μ one-hot and λ constant, by the biases of the output layer."""
    names = ("adam", "sgd", "muon")
    layers = describe_layers(model.named_parameters())
    network = L3RSNetwork(L3RSConfig(layers=layers, directions=names, adam_betas=(0.9, 0.999)))
    bias = torch.tensor([200.0 * (name == direction) for name in names] + [math.log(2.0)])
    network.biases[-1].data.copy_(bias)
    return network


TORCH_OPTIMIZERS = {
    "adam": lambda params: torch.optim.Adam(params, lr=1.0, betas=(0.9, 0.999), eps=1e-8),
    "sgd": lambda params: torch.optim.SGD(params, lr=1.0),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("direction", TORCH_OPTIMIZERS)
def test_one_direction_is_torchs_normalised_update(direction, dtype):
    """Invariant 3: with μ one-hot and λ constant, an update is that of torch's own class, rescaled to norm λ."""
    models = make_model(dtype), make_model(dtype)
    network = constant_network(models[0], direction)
    update_rms = network.config.base_step * math.exp(network.biases[-1][-1].item())
    optimizer = L3RS(models[0], network=network, num_training_steps=NUM_STEPS)
    torchs = TORCH_OPTIMIZERS[direction](models[1].parameters())
    for k in range(1, NUM_STEPS):
        loss = set_gradients(k, models, dtype)
        before = [theta.detach().clone() for theta in models[0].parameters()]
        for theta in models[1].parameters():
            theta.data.zero_()  # what torch's optimizer leaves here is its update, unrounded
        optimizer.step(loss)
        torchs.step()
        for theta, old, other in zip(models[0].parameters(), before, models[1].parameters()):
            expected = other.detach() / other.norm() * update_rms * math.sqrt(other.numel())
            torch.testing.assert_close(theta.detach(), old + expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
