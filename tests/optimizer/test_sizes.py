"""Names and shapes of the meta-parameters: those of the network, known before it is there, and bounded."""

import pytest

from hf_l3rs import L3RSConfig, L3RSNetwork, LayerSpec
from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.optimizer.network import MAX_META_PARAMETERS, check_shapes, tensor_shapes


LAYERS = (LayerSpec("a.weight", (2, 3), "linear_down.weight", ""), LayerSpec("a.bias", (2,), "linear_down.bias", ""))
CONFIG = L3RSConfig(LAYERS)


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
    config = CONFIG.replace(**changes)
    parameters = {name: tuple(parameter.shape) for name, parameter in L3RSNetwork(config).named_parameters()}
    assert tensor_shapes(config) == parameters
    assert list(tensor_shapes(config)) == list(parameters)
    check_shapes(config, parameters, "here")


@pytest.mark.parametrize(
    "changes", [{"hidden_sizes": (30_000, 30_000)}, {"hidden_sizes": (2**16,) * 32}, {"hidden_sizes": (10_000,) * 2}]
)
def test_more_than_anybody_means(changes, monkeypatch):
    monkeypatch.setattr("torch.randn", None)  # nothing is allocated
    config = CONFIG.replace(**changes)
    for call in (tensor_shapes, L3RSNetwork, lambda config: check_shapes(config, {}, "here")):
        with pytest.raises(ConfigError) as error:
            call(config)
        message = str(error.value)
        assert (
            "hidden_sizes" in message and f"at most {MAX_META_PARAMETERS:,}" in message and "choose smaller" in message
        )
        assert len(message) < 300


def test_as_many_tensors_as_there_are_names_for():
    shapes = tensor_shapes(CONFIG)
    with pytest.raises(ArtifactError) as error:
        check_shapes(
            CONFIG, {**shapes, **{f"tensor {index}": (1,) for index in range(10_000)}, "\n\x1b": (1,)}, "here"
        )
    message = str(error.value)
    assert "missing None, surplus" in message and message.isprintable() and len(message) < 300
