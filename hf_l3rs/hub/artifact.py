"""The artefact in a folder: names, strict loading, atomic saving."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.markdown import one_line
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork, check_shapes, tensor_shapes


CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
README = "README.md"
RESULTS_NAME = "results.json"
PICTURE_NAME = "curves.png"  # of the results; optional

# Where meta-training and evaluation leave an L3RS in their output folder.
L3RS_NAME = "l3rs"

# The released artefacts, which come with the package: a folder each, loaded by its bare name.
RELEASED = Path(__file__).parents[1] / "released"

# Bytes. A configuration with as many layers as one may have is smaller.
_MAX_CONFIG_SIZE = 2**23


def save_network(network: L3RSNetwork, folder: PathLike) -> None:
    """
    Writes `config.json` and `model.safetensors`: the same bytes for the same network, and never half of a file.

    Args:
        network ([`L3RSNetwork`]): What to save.
        folder (`str` or `os.PathLike`): Made if absent.

    Raises:
        ArtifactError: If a meta-weight is not a number.
        StorageError: If the folder cannot be written.
    """
    write_files(folder, network_files(network))


def network_files(network: L3RSNetwork) -> dict[str, bytes]:
    """Returns the content of both files by their names; see [`save_network`]."""
    if not bool(torch.isfinite(network.to_vector()).all()):
        raise ArtifactError("The meta-weights are not finite numbers throughout; save those of a run that converged.")
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    config = network.config.replace(library_version=_library_version()).to_dict()
    return {
        WEIGHTS_NAME: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        CONFIG_NAME: (json.dumps(config, indent=2, allow_nan=False) + "\n").encode(),
    }


def _library_version() -> str | None:
    try:
        return version("hf_l3rs")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return None


def released_names() -> list[str]:
    """Returns the names of the learned optimizers that come with the package."""
    return sorted(folder.parent.name for folder in RELEASED.glob(f"*/{CONFIG_NAME}"))


def picture_in(folder: PathLike) -> str | None:
    """Returns the name of the picture of the results that is in a folder; `None` where there is none."""
    return PICTURE_NAME if os.path.isfile(Path(folder, PICTURE_NAME)) else None  # also of a name that no file can have


def load_network(folder: PathLike, source: str | None = None) -> L3RSNetwork:
    """
    Reads what [`save_network`] wrote, strictly. Nothing is unpickled, no code is run, and no more memory is taken than
    the weights need that are there.

    Args:
        folder (`str` or `os.PathLike`): Holds `config.json` and `model.safetensors`.
        source (`str`, *optional*): What messages call it; the folder by default.

    Returns:
        [`L3RSNetwork`]

    Raises:
        ArtifactError: If the folder or a file is missing, unreadable or of something else, or tensors do not fit.
        ConfigError: If the config is of a newer format, or a field is unknown, missing or out of range.
    """
    folder, source = Path(folder), source or str(folder)
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except OSError as error:  # no permission, or a name that none can have
        raise ArtifactError(
            f"{source} cannot be read ({error.strerror}); allow it, or pass another folder."
        ) from error
    if not is_folder:
        kind = "is a file, not a folder" if exists else "does not exist"
        raise ArtifactError(f"{source} {kind}; pass the folder that L3RS.save_pretrained wrote.")
    config = _read_config(folder / CONFIG_NAME, source)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ArtifactError(f"{source} has no {WEIGHTS_NAME}; save or download the L3RS again.")
    label = f"{WEIGHTS_NAME} of {source}"
    try:
        with safe_open(weights, framework="pt") as header:
            shapes = {name: tuple(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118
        check_shapes(config, shapes, label)
        tensors = safetensors.torch.load_file(weights)
    except ArtifactError:
        raise
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{WEIGHTS_NAME} in {source} is truncated or not a safetensors file ({one_line(error)}); save or download "
            "the L3RS again."
        ) from error
    network = L3RSNetwork(config)
    network.load_tensors(tensors, label)
    return network


def _read_config(file: Path, source: str) -> L3RSConfig:
    if not file.is_file():
        where = "the folder that L3RS.save_pretrained wrote"
        if (file.parent / L3RS_NAME / CONFIG_NAME).is_file():  # the output folder of a run
            where = f"{Path(source, L3RS_NAME)}, in which it has one"
        raise ArtifactError(f"{source} has no {CONFIG_NAME}; pass {where}.")
    try:
        if file.stat().st_size > _MAX_CONFIG_SIZE:
            raise ValueError(f"it has more than {_MAX_CONFIG_SIZE:,} bytes")
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
        config = L3RSConfig.from_dict(values)
        tensor_shapes(config)  # also refuses what is too large to be meant
        return config
    except ConfigError as error:
        raise ConfigError(f"{CONFIG_NAME} of {source}: {error}") from error
