"""The network: untrained it is the reference step, its weights are one vector, and they load strictly."""

import math

import pytest
import torch

from hf_l3rs import L3RSConfig, L3RSNetwork, LayerSpec
from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.optimizer.config import FORMAT_VERSION
from hf_l3rs.optimizer.features import num_features
from hf_l3rs.optimizer.network import check_shapes, tensor_shapes


LAYERS = (LayerSpec("a.weight", (2, 3), "linear_down.weight", ""), LayerSpec("a.bias", (2,), "linear_down.bias", ""))
CONFIG = L3RSConfig(LAYERS, directions=("adam", "sgd", "muon"), base_model="org/model", num_training_steps=20)


def inputs(network, num_layers=5, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    identity = torch.rand(num_layers, len(network.config.layers), generator=generator, dtype=torch.float64)
    return scale * torch.randn(num_layers, num_features(network.config), generator=generator), identity


def decide(network, features, identity):
    return network.for_layers(identity, features)(features)


def filled(config=CONFIG, value=0.1):
    network = L3RSNetwork(config)
    generator = torch.Generator().manual_seed(1)
    network.load_vector(value * torch.randn(network.num_meta_parameters, generator=generator))
    return network


def test_untrained_is_the_uniform_mixture_and_the_reference_step():
    network = L3RSNetwork(CONFIG)
    mixture, scale = decide(network, *inputs(network))
    assert torch.equal(mixture, torch.full((5, 3), 1 / 3))
    assert torch.equal(scale, torch.ones(5))


def test_initial_weights_are_of_the_seed():
    assert torch.equal(L3RSNetwork(CONFIG, seed=3).to_vector(), L3RSNetwork(CONFIG, seed=3).to_vector())
    assert not torch.equal(L3RSNetwork(CONFIG, seed=3).to_vector(), L3RSNetwork(CONFIG, seed=4).to_vector())


def test_vector_round_trip():
    network, other = filled(), L3RSNetwork(CONFIG)
    vector = network.to_vector()
    assert vector.shape == (network.num_meta_parameters,)
    other.load_vector(vector)
    assert all(torch.equal(own, value) for own, value in zip(other.parameters(), network.parameters()))
    other.embeddings.data.add_(1)  # the vector is a copy, and the network does not refer to it
    assert torch.equal(vector, network.to_vector())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("embeddings"), "embeddings"),
        (lambda t: t.update(embeddings=torch.full((2, 8), math.inf)), "not finite"),
        (lambda t: t.update(embeddings=torch.ones(2, 8, dtype=torch.int64)), "not finite floating-point"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, words):
    """Invariant 5: a network is never half loaded."""
    network = filled()
    before = network.to_vector()
    tensors = dict(L3RSNetwork(CONFIG).state_dict())
    change(tensors)
    with pytest.raises(ArtifactError) as caught:
        network.load_tensors(tensors, "here")
    assert words in str(caught.value) and "here" in str(caught.value)
    assert torch.equal(network.to_vector(), before)


def test_fingerprint_changes_with_every_weight():
    """Invariant 4: a checkpoint knows its meta-weights."""
    network = filled()
    seen = {network.fingerprint()}
    for parameter in network.parameters():
        flat = parameter.data.view(-1)
        for index in (0, len(flat) - 1):
            flat[index] = torch.nextafter(flat[index], torch.tensor(9.0))
            seen.add(network.fingerprint())
    assert len(seen) == 1 + 2 * len(list(network.parameters()))


@pytest.mark.parametrize(
    "changes",
    [{"base_model": "org/other"}, {"model_type": "vit"}, {"meta_training": {"cost": 3}}, {"library_version": "9"}],
)
def test_fingerprint_ignores_provenance(changes):
    assert L3RSNetwork(CONFIG.replace(**changes)).fingerprint() == L3RSNetwork(CONFIG).fingerprint()
    assert CONFIG.format_version == FORMAT_VERSION


def test_other_meta_weights_decide_otherwise_and_get_gradients():
    network = filled()
    features, identity = inputs(network)
    vector = (2 * network.to_vector()).requires_grad_()
    choice = network.for_layers(identity, features, vector)(features)
    twin = filled()
    twin.load_vector(vector.detach())
    torch.testing.assert_close(choice[0], decide(twin, features, identity)[0])
    (gradient,) = torch.autograd.grad(choice[1].sum(), vector)
    assert gradient.abs().sum() > 0


SIZED = L3RSConfig(LAYERS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_sizes": ()},
        {"hidden_sizes": (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)},
        {"embedding_size": 0, "features": ("loss",)},
        {"directions": ("adam",)},
    ],
)
def test_shapes_are_those_of_the_network(changes):
    config = SIZED.replace(**changes)
    parameters = {name: tuple(parameter.shape) for name, parameter in L3RSNetwork(config).named_parameters()}
    assert tensor_shapes(config) == parameters
    assert list(tensor_shapes(config)) == list(parameters)
    check_shapes(config, parameters, "here")


@pytest.mark.parametrize(
    "changes", [{"hidden_sizes": (30_000, 30_000)}, {"hidden_sizes": (2**16,) * 32}, {"hidden_sizes": (10_000,) * 2}]
)
def test_more_than_anybody_means(changes, monkeypatch):
    monkeypatch.setattr("torch.randn", None)  # nothing is allocated
    config = SIZED.replace(**changes)
    for call in (tensor_shapes, L3RSNetwork, lambda config: check_shapes(config, {}, "here")):
        with pytest.raises(ConfigError, match="hidden_sizes"):
            call(config)
