"""What is known of a layer before the first step."""

import pytest
import torch

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.optimizer.config import FEATURES, STRUCTURE, LayerSpec
from hf_l3rs.optimizer.layers import STRUCTURE_NAMES, fan_in, identify_layers, is_matrix, match_layers, structure
from tests.tiny import tiny_vit


@pytest.mark.parametrize(
    "shape, expected",
    [((), 1), ((8,), 1), ((4, 6), 6), ((4, 3, 2, 2), 12), ((1, 17, 8), 1), ((4, 0), 1), ((5, 1, 3, 3), 9)],
)
def test_fan_in(shape, expected):
    assert fan_in(shape) == expected
    assert expected == 1 or is_matrix(shape)


def test_structure_is_bounded_and_tells_layers_apart():
    layers = describe_layers(tiny_vit().named_parameters())
    columns = structure(layers)
    assert columns.shape == (len(layers), len(STRUCTURE_NAMES))
    assert columns.abs().max() <= 1
    assert len({tuple(row) for row in columns.tolist()}) == len(layers)
    assert structure([]).shape == (0, len(STRUCTURE_NAMES))


def test_structure_comes_only_where_the_config_asks_for_it():
    layers = describe_layers(tiny_vit().named_parameters())
    weights, _ = match_layers(layers, layers)
    assert torch.equal(identify_layers(layers, L3RSConfig(layers)), weights)
    both = identify_layers(layers, L3RSConfig(layers, features=(*FEATURES, STRUCTURE)))
    assert torch.equal(both, torch.cat((weights, structure(layers)), dim=1))


def step_sizes(model, network):
    """The root mean square of the first update per element, by name."""
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    L3RS(model, network=network, num_training_steps=10).step(1.0)
    return {name: (parameter - before[name]).square().mean().sqrt() for name, parameter in model.named_parameters()}


def test_steps_of_the_reference_fan_in_shrink_with_width():
    """Against 64 inputs as wide: a layer of that fan-in moves as under "rms", and vectors always do."""
    narrow, wide = torch.nn.Linear(64, 3), torch.nn.Linear(256, 3)
    sizes = {}
    for model in (narrow, wide):
        config = L3RSConfig(describe_layers(model.named_parameters()), step_reference="fan_in", directions=("sgd",))
        sizes[model] = step_sizes(model, L3RSNetwork(config))
    torch.testing.assert_close(sizes[narrow]["weight"], torch.tensor(1e-3), rtol=1e-3, atol=0)
    torch.testing.assert_close(sizes[wide]["weight"], torch.tensor(0.25e-3), rtol=1e-3, atol=0)
    torch.testing.assert_close(sizes[wide]["bias"], torch.tensor(1e-3), rtol=1e-3, atol=0)


def test_steps_of_the_reference_relative_follow_the_parameter():
    """A parameter that is zero moves all the same."""
    model = torch.nn.Linear(50, 40)
    with torch.no_grad():
        model.weight.normal_(0, 3)
        model.bias.zero_()
    config = L3RSConfig(describe_layers(model.named_parameters()), step_reference="relative", directions=("sgd",))
    sizes = step_sizes(model, L3RSNetwork(config))
    torch.testing.assert_close(sizes["weight"], torch.tensor(3e-3), rtol=0.05, atol=0)
    torch.testing.assert_close(sizes["bias"], torch.tensor(2e-5), rtol=1e-3, atol=0)


def test_one_network_knows_layers_by_structure():
    """Layers that all take one embedding still get steps of their own."""
    known = (LayerSpec("anything", (3,), "new", "0"),)
    network = L3RSNetwork(L3RSConfig(known, features=(*FEATURES, STRUCTURE)))
    vector = network.to_vector()
    network.load_vector(vector + 0.1 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(1)))
    identity = identify_layers(
        (LayerSpec("a", (8, 4), "linear", ""), LayerSpec("b", (8, 400), "linear", "")), network.config
    )
    factors = network.meta_weights().decider(identity, vector)(torch.zeros(2, network.weights[0].shape[1] - 12)).factor
    assert factors[0] != factors[1]
