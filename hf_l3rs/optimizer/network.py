"""The learned part: one embedding a layer and one MLP that all layers share (paper, fig. 2)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.optimizer.config import STRUCTURE, L3RSConfig
from hf_l3rs.optimizer.features import num_features
from hf_l3rs.optimizer.layers import STRUCTURE_NAMES, describe_layers
from hf_l3rs.validation import short


# A learned optimizer is small beside the model that it trains; more than this is a mistake in its sizes.
MAX_META_PARAMETERS = 10**8


def tensor_shapes(config: L3RSConfig) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the meta-parameters in the order of `to_vector`; refuses far too many."""
    inputs = num_features(config) + config.embedding_size + len(STRUCTURE_NAMES) * (STRUCTURE in config.features)
    sizes = (inputs, *config.hidden_sizes, len(config.directions) + 1)
    shapes: dict[str, tuple[int, ...]] = {"embeddings": (len(config.layers), config.embedding_size)}
    shapes |= {f"weights.{i}": (fan_out, fan_in) for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes))}
    shapes |= {f"biases.{i}": (fan_out,) for i, fan_out in enumerate(sizes[1:])}
    count = sum(map(math.prod, shapes.values()))
    if count > MAX_META_PARAMETERS:
        raise ConfigError(
            f"L3RSConfig.hidden_sizes {short(list(config.hidden_sizes))} and its other sizes make {count:,} "
            f"meta-parameters, but at most {MAX_META_PARAMETERS:,} are allowed; choose smaller sizes."
        )
    return shapes


def check_shapes(config: L3RSConfig, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raises where names and shapes of tensors from `source` are not those that the configuration asks for."""
    shapes = tensor_shapes(config)
    for name in sorted(shapes.keys() | found.keys()):
        if found.get(name) != shapes.get(name):
            got = f"has shape {short(found[name])}" if name in found else "is missing"
            wanted = f"one of shape {shapes[name]}" if name in shapes else "none of that name"
            raise ArtifactError(
                f"Tensor {short(name)} in {source} {got}, but its config asks for {wanted}; config and weights must "
                "come from the same save."
            )


# exp(±12) spans ten decades around the reference step: enough for any layer, and finite in float32.
LOG_SCALE_LIMIT = 12.0


class LayersNetwork(NamedTuple):
    """The network for a model's layers: the MLP's weights and biases, and what tells the layers apart."""

    linear: list[tuple[torch.Tensor, torch.Tensor]]
    identity: torch.Tensor

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns μ `(num_layers, num_directions)` and the factor on the reference step `(num_layers,)`."""
        kind = features.device.type
        is_autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        # a step does not depend on where it is called
        with torch.autocast(kind, enabled=False) if is_autocast else contextlib.nullcontext():
            *inner, (last_weight, last_bias) = self.linear
            hidden = torch.cat((features, self.identity), dim=1)
            for weight, bias in inner:
                hidden = nn.functional.silu(torch.addmm(bias, hidden, weight.t()))
            output = torch.addmm(last_bias, hidden, last_weight.t())
            factor = torch.exp(output[:, -1].clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT))
            return torch.softmax(output[:, :-1], dim=1), factor


class L3RSNetwork(nn.Module):
    """
    Maps what is seen of each layer to how its base directions are mixed and how large its update is (paper, fig. 2).
    An untrained network mixes all directions equally and takes the configuration's reference step.

    Args:
        config ([`L3RSConfig`]): Layers, directions, features and sizes.
        seed (`int`, *optional*, defaults to `0`): Seed of the initial weights.
    """

    def __init__(self, config: L3RSConfig, seed: int = 0) -> None:
        if not isinstance(config, L3RSConfig):
            raise ConfigError(f"A network is made of an L3RSConfig, got {short(config)}; build one, or load one.")
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        shapes = tensor_shapes(config)
        embeddings = 0.5 * torch.randn(shapes.pop("embeddings"), generator=generator)
        self.embeddings = nn.Parameter(embeddings, requires_grad=False)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for index in range(len(shapes) // 2):
            fan_out, fan_in = shapes[f"weights.{index}"]
            weight = torch.randn(fan_out, fan_in, generator=generator) / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(weight, requires_grad=False))
            self.biases.append(nn.Parameter(torch.zeros(fan_out), requires_grad=False))
        self.weights[-1].zero_()

    def for_layers(
        self, identity: torch.Tensor, like: torch.Tensor, vector: torch.Tensor | None = None
    ) -> LayersNetwork:
        """
        Returns the network for layers of this `identity` (see `identify_layers`), on the device and in the type of
        `like`; with a `vector`, of those meta-parameters, which gradients go through to.
        """
        own: Sequence[torch.Tensor] = list(self.parameters())
        if vector is not None:
            own = [part.view_as(each) for part, each in zip(vector.split([each.numel() for each in own]), own)]
        embeddings, count = own[0], len(self.weights)
        weights, structure = identity.to(embeddings.device).tensor_split([len(embeddings)], dim=1)
        embedded = torch.cat((embed(weights, embeddings).to(like), structure.to(like)), dim=1)
        linear = zip(own[1 : count + 1], own[count + 1 :])
        return LayersNetwork([(weight.to(like), bias.to(like)) for weight, bias in linear], embedded)

    @property
    def num_meta_parameters(self) -> int:
        """The number of learned values ψ."""
        return sum(parameter.numel() for parameter in self.parameters())

    def to_vector(self) -> torch.Tensor:
        """Returns a copy of all meta-parameters ψ as one vector of shape `(num_meta_parameters,)`."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters()])

    @torch.no_grad()
    def load_vector(self, vector: torch.Tensor) -> None:
        """Sets all meta-parameters ψ from one vector, as [`~L3RSNetwork.to_vector`] orders them."""
        if vector.shape != (self.num_meta_parameters,):
            raise ConfigError(
                f"Expected {self.num_meta_parameters} meta-parameters in one vector, got shape {tuple(vector.shape)}; "
                "pass what to_vector() of a network of the same config gave."
            )
        parameters = list(self.parameters())
        for parameter, chunk in zip(parameters, vector.split([parameter.numel() for parameter in parameters])):
            parameter.copy_(chunk.view_as(parameter))

    def load_tensors(self, tensors: Mapping[str, torch.Tensor], source: str) -> None:
        """Sets all meta-parameters from tensors of `source`, which must fit those of `state_dict()`."""
        check_shapes(self.config, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
                raise ArtifactError(
                    f"Tensor {name!r} in {source} is not finite floating-point numbers of 32 bits throughout, but "
                    f"{tensor.dtype}; save the L3RS again from a network that works."
                )
        self.load_state_dict(dict(tensors), strict=True)

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that change with any meta-weight or any setting that a step depends on."""
        digest = hashlib.sha256(self.config.settings.encode())
        digest.update(self.to_vector().to(torch.float32).cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def embed(weights: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Returns the embeddings, in float64, of layers that are given as weights over the known ones."""
    return weights.to(embeddings).double() @ embeddings.double()


def choose_network(
    network: L3RSNetwork | None, config: L3RSConfig | None, named_parameters: Sequence[tuple[str, torch.Tensor]]
) -> L3RSNetwork:
    """Returns the network, or an untrained one of the configuration, or else one for these parameters' layers."""
    if network is None and config is not None:
        return L3RSNetwork(config)
    if network is None and named_parameters:  # that a name is there twice is told later
        return L3RSNetwork(L3RSConfig(describe_layers(dict(named_parameters).items())))
    if network is None:
        raise ConfigError(
            "L3RS got neither meta-weights nor parameters to train; load it by L3RS.from_pretrained, or pass a model "
            "that is not frozen."
        )
    if not isinstance(network, L3RSNetwork):
        raise ConfigError(
            f"network must be an L3RSNetwork, got {short(network)}; load a folder or a Hub id by L3RS.from_pretrained."
        )
    if config is not None:
        raise ConfigError("L3RS got both a network, which has a config, and another config; leave out one of them.")
    return network
