"""What is known of a layer before the first step: whose embedding it takes, how wide it is, and how deep it stands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hf_l3rs.learned.config import STRUCTURE, L3RSConfig, LayerSpec
from hf_l3rs.learned.layers import match_layers


# Columns of the feature group "structure" (ours), each roughly within ±1.
STRUCTURE_NAMES = ("log_fan_in", "log_fan_out", "is_matrix", "depth")

# The fan-in at which the references "fan_in" and "rms" agree; that of the middle of small models.
REFERENCE_FAN_IN = 64


def is_matrix(shape: Sequence[int]) -> bool:
    """Whether a parameter multiplies activations: matrices and kernels, but no biases, scales and added embeddings."""
    return len(shape) > 1 and not (len(shape) == 3 and shape[0] == 1)


def fan_in(shape: Sequence[int]) -> int:
    """Returns how many inputs each output of a matrix or kernel sums up; 1 for everything else."""
    return max(math.prod(shape[1:]), 1) if is_matrix(shape) else 1


def identify_layers(layers: Sequence[LayerSpec], config: L3RSConfig) -> torch.Tensor:
    """
    Returns what tells the layers of a model apart for a network: the weights of
    [`~hf_l3rs.learned.layers.match_layers`], and beside them, if it has the feature group, STRUCTURE_NAMES.

    Args:
        layers (`Sequence[LayerSpec]`): The trained layers of the model, in its order.
        config ([`L3RSConfig`]): Of the network.

    Returns:
        `torch.Tensor` of shape `(num_layers, num_known_layers)`, or with four more columns; float64.
    """
    weights = match_layers(layers, config.layers).weights
    return torch.cat((weights, structure(layers)), dim=1) if STRUCTURE in config.features else weights


def structure(layers: Sequence[LayerSpec]) -> torch.Tensor:
    """Returns the columns STRUCTURE_NAMES, of shape `(num_layers, 4)`."""
    rows = [
        (
            math.log(fan_in(layer.shape)) / 4 - 1,
            math.log(max(layer.shape[0] if layer.shape else 1, 1)) / 4 - 1,
            float(is_matrix(layer.shape)),
            2 * (index + 0.5) / len(layers) - 1,
        )
        for index, layer in enumerate(layers)
    ]
    return torch.tensor(rows, dtype=torch.float64).view(-1, len(STRUCTURE_NAMES))
