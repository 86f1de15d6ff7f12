"""Averaged iterates: the weights, and what they do to a parameter."""

import pytest
import torch

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.optimizer.arithmetic import FUNCTIONAL, IN_PLACE
from hf_l3rs.optimizer.averaging import AVERAGE, FAST, average_iterates, averaging_weights
from tests.tiny import trained_network


DIRECTIONS = ("rmsprop", "sgd")


def test_an_untrained_network_averages_uniformly():
    """As schedule-free does with a constant step."""
    for step in (1, 2, 10):
        c, a = averaging_weights(torch.zeros(3, 2), torch.full((3,), float(step)))
        torch.testing.assert_close(c, torch.full((3,), 1 / step))
        torch.testing.assert_close(a, torch.full((3,), 0.9), rtol=1e-3, atol=0)


def test_weights_are_polynomial():
    """Iterates weigh i, so that the average of z = 1, 2, ... is (2n + 1) / 3."""
    average = torch.zeros(1)
    outputs = torch.tensor([[2.0, 0.0]]).log()
    for step in range(1, 30):
        c, _ = averaging_weights(outputs, torch.tensor([float(step)]))
        average = torch.lerp(average, torch.tensor([float(step)]), c)
        torch.testing.assert_close(average, torch.tensor([(2 * step + 1) / 3]))


@pytest.mark.parametrize("value", [-1e30, 1e30])
def test_weights_stay_within_bounds(value):
    for weight in averaging_weights(torch.full((2, 2), value), torch.tensor([1.0, 1e6])):
        assert ((weight >= 0) & (weight <= 1)).all()


@pytest.mark.parametrize("arithmetic", [IN_PLACE, FUNCTIONAL], ids=["in place", "functional"])
def test_iterates(arithmetic):
    """The second layer is not usable, and stays where it is whatever its buffers are."""
    y, z, x = ([torch.full((2,), value), torch.full((2,), value + 10)] for value in (0.0, 1.0, 2.0))
    weights = torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.75])
    params, buffers = average_iterates(y, z, x, weights, torch.tensor([True, False]), arithmetic)
    assert [tensor[0].item() for tensor in buffers[FAST]] == [1, 11]
    assert [tensor[0].item() for tensor in buffers[AVERAGE]] == [1.5, 12]
    assert [tensor[0].item() for tensor in params] == [1.375, 10]


def train(model, optimizer, steps):
    for k in steps:
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)).to(parameter)
        optimizer.step(torch.tensor(1.0))


def test_steps_too_small_for_a_low_precision_parameter_are_not_lost():
    """The iterates are of float32: what a bfloat16 parameter rounds away is in them."""
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        model = torch.nn.Linear(4, 4).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1.0)
        config = L3RSConfig(describe_layers(model.named_parameters()), ("sgd",), averaging=True, base_step=1e-4)
        optimizer = L3RS(model, network=L3RSNetwork(config), num_training_steps=40)
        for _ in range(40):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step(1.0)
        ends.append(optimizer.state[model.weight][AVERAGE])
    torch.testing.assert_close(*ends, rtol=1e-4, atol=0)
    assert ends[1][0, 0] < 0.999


def test_state_resumes_to_the_byte():
    ends = []
    for is_cut in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        network = trained_network(model, directions=DIRECTIONS, averaging=True)
        optimizer = L3RS(model, network=network, num_training_steps=10)
        train(model, optimizer, range(5))
        if is_cut:
            saved = optimizer.state_dict()
            optimizer = L3RS(model, network=network, num_training_steps=10)
            optimizer.load_state_dict(saved)
        train(model, optimizer, range(5, 10))
        ends.append(list(model.parameters()))
    assert all(map(torch.equal, *ends))
