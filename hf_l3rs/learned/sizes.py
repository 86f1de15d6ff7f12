"""The names and shapes of the meta-parameters: known, and compared, before any of them is allocated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.learned.config import STRUCTURE, L3RSConfig
from hf_l3rs.learned.features import num_features
from hf_l3rs.learned.structure import STRUCTURE_NAMES
from hf_l3rs.validation import short


# A learned optimizer is small beside the model that it trains; more than this is a mistake in its sizes.
MAX_META_PARAMETERS = 10**8


def tensor_shapes(config: L3RSConfig) -> dict[str, tuple[int, ...]]:
    """
    Returns the names and shapes of the meta-parameters in the order of [`~L3RSNetwork.to_vector`]; allocates nothing.

    Raises:
        ConfigError: If they are too many to be meant.
    """
    inputs = num_features(config) + config.embedding_size + len(STRUCTURE_NAMES) * (STRUCTURE in config.features)
    outputs = len(config.directions) + 1 + 2 * config.averaging
    sizes = (inputs, *config.hidden_sizes, outputs)
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
    """
    Compares the names and shapes of tensors with those that a configuration asks for.

    Raises:
        ArtifactError: If a tensor is missing, surplus or of another shape. `source` names where they come from.
    """
    shapes = tensor_shapes(config)
    missing, surplus = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
    if missing or surplus:
        raise ArtifactError(
            f"The tensors in {source} do not fit its config: missing {short(missing or None)}, surplus "
            f"{short(surplus or None)}; config and weights must come from the same save."
        )
    for name, shape in shapes.items():
        if found[name] != shape:
            raise ArtifactError(
                f"Tensor {name!r} in {source} has shape {short(found[name])}, but its config asks for {shape}; config "
                "and weights must come from the same save."
            )
