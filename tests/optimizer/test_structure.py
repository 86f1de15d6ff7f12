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


@pytest.mark.parametrize("step_reference", ["rms", "relative"])
def test_steps_shrink_with_width_and_with_size(step_reference):
    """A matrix of 256 inputs has 4 times the reference's, and 131,328 parameters are trained in either model."""
    ratios = {}
    for exponent in ({}, {"width_exponent": 0.75}, {"size_exponent": 0.15}):
        for model in (torch.nn.Linear(256, 512 - 1), torch.nn.Linear(64, 3), torch.nn.Conv2d(64, 3, 2)):
            torch.nn.init.ones_(model.weight)
            torch.nn.init.ones_(model.bias)
            layers = describe_layers(model.named_parameters())
            config = L3RSConfig(layers, step_reference=step_reference, directions=("sgd",), **exponent)
            ratios[type(model), model.weight.shape[1], "".join(exponent)] = step_sizes(model, L3RSNetwork(config))
    wide, narrow, kernel = (torch.nn.Linear, 256), (torch.nn.Linear, 64), (torch.nn.Conv2d, 64)
    size = (100_000 / (256 * 511 + 511)) ** 0.15
    for layer, name, exponent, factor in (
        (wide, "weight", "width_exponent", 0.25**0.75),
        (wide, "bias", "width_exponent", 1.0),
        (narrow, "weight", "width_exponent", 1.0),
        (kernel, "weight", "width_exponent", 1.0),
        (wide, "weight", "size_exponent", size),
        (wide, "bias", "size_exponent", size),
        (kernel, "weight", "size_exponent", 1.0),
    ):
        plain, shrunk = ratios[(*layer, "")][name], ratios[(*layer, exponent)][name]
        torch.testing.assert_close(shrunk, factor * plain, rtol=1e-3, atol=0)


def test_size_is_of_all_that_is_trained():
    """Groups, and layers without a gradient, count: the step of a layer is the same as in one group of all."""
    sizes = []
    for kind in ("one group", "two groups", "no gradient"):
        model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.Linear(400, 3))
        torch.nn.init.ones_(model[1].bias)
        config = L3RSConfig(describe_layers(model.named_parameters()), directions=("sgd",), size_exponent=1.0)
        named = list(model.named_parameters())
        groups = [{"params": named[:2]}, {"params": named[2:]}] if kind == "two groups" else named
        optimizer = L3RS(groups, config, num_training_steps=10)
        for index, (_, parameter) in enumerate(named):
            parameter.grad = None if kind == "no gradient" and index == 0 else torch.ones_like(parameter)
        optimizer.step(1.0)
        sizes.append(1 - model[1].bias[0].item())
    assert sizes == pytest.approx([1e-3 * 100_000 / 121_603] * 3, rel=1e-3)


def test_one_network_knows_layers_by_structure():
    """Layers that all take one embedding still get steps of their own."""
    known = (LayerSpec("anything", (3,), "new", "0"),)
    network = L3RSNetwork(L3RSConfig(known, features=(*FEATURES, STRUCTURE)))
    vector = network.to_vector()
    network.load_vector(vector + 0.1 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(1)))
    identity = identify_layers(
        (LayerSpec("a", (8, 4), "linear", ""), LayerSpec("b", (8, 400), "linear", "")), network.config
    )
    factors = network.for_layers(identity, vector)(torch.zeros(2, network.weights[0].shape[1] - 12)).factor
    assert factors[0] != factors[1]
