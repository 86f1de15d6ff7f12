"""The artefact on disk: names, strict loading, atomic saving."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from hf_l3rs.errors import ArtifactError, L3RSError
from hf_l3rs.files import write_files
from hf_l3rs.hub.errors import one_line
from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.network import L3RSNetwork


CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
README = "README.md"
RESULTS_NAME = "results.json"

PathLike = str | os.PathLike[str]


def save_network(network: L3RSNetwork, folder: PathLike) -> None:
    """
    Writes `config.json` and `model.safetensors`: the same bytes for the same network, and never half of a file.

    Args:
        network ([`L3RSNetwork`]): What to save.
        folder (`str` or `os.PathLike`): Made if absent.
    """
    write_files(folder, network_files(network))


def network_files(network: L3RSNetwork) -> dict[str, bytes]:
    config = network.config.replace(library_version=_library_version())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {
        WEIGHTS_NAME: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        CONFIG_NAME: (json.dumps(config.to_dict(), indent=2) + "\n").encode(),
    }


def _library_version() -> str | None:
    try:
        return version("hf_l3rs")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return None


def load_network(folder: PathLike) -> L3RSNetwork:
    """
    Reads what [`save_network`] wrote, strictly. Nothing is unpickled and no code is run.

    Args:
        folder (`str` or `os.PathLike`): Holds `config.json` and `model.safetensors`.

    Returns:
        [`L3RSNetwork`]

    Raises:
        ArtifactError: If the folder or a file is missing, unreadable or of something else, or tensors do not fit.
        ConfigError: If the config is of a newer format, or a field is unknown, missing or out of range.
    """
    return read_network(Path(folder), str(folder))


def read_network(folder: Path, source: str) -> L3RSNetwork:
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ArtifactError(f"{source} {kind}; pass the folder that L3RS.save_pretrained wrote.")
    network = L3RSNetwork(_read_config(folder / CONFIG_NAME, source))
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ArtifactError(f"{source} has no {WEIGHTS_NAME}; save or download the L3RS again.")
    try:
        tensors = safetensors.torch.load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{WEIGHTS_NAME} in {source} is truncated or not a safetensors file ({one_line(error)}); save or download "
            "the L3RS again."
        ) from error
    network.load_tensors(tensors, f"{WEIGHTS_NAME} of {source}")
    return network


def _read_config(file: Path, source: str) -> L3RSConfig:
    if not file.is_file():
        raise ArtifactError(f"{source} has no {CONFIG_NAME}; pass the folder that L3RS.save_pretrained wrote.")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ArtifactError(
            f"{CONFIG_NAME} in {source} is not JSON ({one_line(error)}); save or download the L3RS again."
        ) from error
    if not isinstance(values, dict) or "format_version" not in values:
        is_model = isinstance(values, dict) and ("model_type" in values or "architectures" in values)
        raise ArtifactError(
            f"{source} holds {'a transformers model' if is_model else 'something else'}, not an L3RS: its "
            f"{CONFIG_NAME} has no format_version; pass the folder or Hub id of a learned optimizer."
        )
    try:
        return L3RSConfig.from_dict(values)
    except L3RSError as error:
        raise type(error)(f"{CONFIG_NAME} of {source}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:  # a value of a kind that no check foresees
        raise ArtifactError(
            f"{CONFIG_NAME} of {source} has a value of a wrong type ({one_line(error)}); save or download the L3RS "
            "again."
        ) from error
