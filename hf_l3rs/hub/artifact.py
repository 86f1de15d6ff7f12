"""An L3RS as it is shared: strict loading from a folder, the package or the Hub, and atomic saving with its card."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import constants, hf_hub_download
from safetensors import SafetensorError, safe_open

from hf_l3rs.errors import ArtifactError, ConfigError, StorageError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.card import generate_model_card, read_card
from hf_l3rs.hub.connection import check_request, hub_errors, is_repo_id, refuse_missing_path
from hf_l3rs.hub.results import read_results_of
from hf_l3rs.markdown import one_line
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork, check_shapes, tensor_shapes
from hf_l3rs.validation import short


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


@dataclass(frozen=True)
class L3RSArtifact:
    """
    What a folder or a Hub repository holds of an L3RS: the meta-weights, with no optimizer around them.

    Args:
        network ([`L3RSNetwork`]): The meta-weights, which know their configuration.
        commit_hash (`str`, *optional*): The Hub's commit that it was loaded from.

    Example:

    ```python
    artifact = L3RSArtifact.from_pretrained("l3rs-resnet-tiny-fashion")
    artifact.save_pretrained("outputs/name")
    optimizer = L3RS(model, network=artifact.network, num_training_steps=100)
    ```
    """

    network: L3RSNetwork
    commit_hash: str | None = None

    @property
    def config(self) -> L3RSConfig:
        """The configuration of the meta-weights."""
        return self.network.config

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> L3RSArtifact:
        """
        Loads what [`~L3RSArtifact.save_pretrained`] wrote, strictly. Nothing is unpickled and no code is run.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A folder, the name of a released L3RS, which comes with the package, such as
                `"l3rs-resnet-tiny-fashion"`, or the id of a Hub repository, `"user/name"`.
            revision (`str`, *optional*): Branch, tag or commit on the Hub; the branch `main` by default.
            token (`str` or `bool`, *optional*): As of `huggingface_hub`; the stored login by default.
            cache_dir (`str` or `os.PathLike`, *optional*): Where downloads are kept; the Hub's cache by default.
            local_files_only (`bool`, *optional*, defaults to `False`): Whether to use only what is in the cache.
            force_download (`bool`, *optional*, defaults to `False`): Whether to download again what is in the cache.

        Raises:
            ArtifactError: If it cannot be had, or is not a readable L3RS.
            ConfigError: If its config is of a newer format or has an invalid value.
        """
        source = pretrained_model_name_or_path
        if not isinstance(source, (str, os.PathLike)):
            raise ArtifactError(
                f"An L3RS is loaded from a folder or by its name or Hub id, got {short(source)}; pass one of these."
            )
        # Only a string can be a name or a Hub id: a `Path` that does not exist is a typo, not a request.
        if os.path.exists(source) or not isinstance(source, str):
            return cls(load_network(source))
        if is_repo_id(source) and "/" not in source:
            return cls(load_network(_released(source, revision), source))
        refuse_missing_path(source)
        options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = _download(source, revision, {**options, "force_download": force_download})
        return cls(load_network(folder, source), folder.name)

    def save_pretrained(
        self,
        save_directory: PathLike,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """
        Saves config, weights and card, so that `from_pretrained` gives the same meta-weights. In a card that is
        there already, what hf_l3rs generated is brought up to date and everything else is kept.

        Args:
            save_directory (`str` or `os.PathLike`): Made if absent.
            repo_id (`str`, *optional*): Hub id for the card's examples and for `push_to_hub`.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload the folder afterwards.
            push_to_hub_kwargs: Passed on to [`~hf_l3rs.hub.publish.push`].

        Returns:
            `str` or `None`: URL of the commit if it was pushed.

        Raises:
            ArtifactError: If a meta-weight is not a number, or the card or results that are there cannot be read.
            StorageError: If the folder cannot be written.
        """
        if not isinstance(save_directory, (str, os.PathLike)):
            raise StorageError(f"An L3RS is saved in a folder, got {short(save_directory)}; pass its path.")
        folder = Path(save_directory)
        files = network_files(self.network)
        results = read_results_of(self.network.fingerprint(), folder / RESULTS_NAME)
        existing, picture = read_card(folder / README), picture_in(folder)
        card = generate_model_card(self.config, results, repo_id=repo_id, existing=existing, picture=picture)
        write_files(folder, {**files, README: str(card).encode()})
        if not push_to_hub:
            return None
        from hf_l3rs.hub.publish import push  # which builds on this file

        return push(folder, repo_id or folder.resolve().name, **push_to_hub_kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads config, weights and card in one commit; see [`~hf_l3rs.hub.publish.push`], which takes a folder."""
        from hf_l3rs.hub.publish import push_network

        return push_network(self.network, repo_id, **kwargs)


def released_names() -> list[str]:
    """Returns the names of the learned optimizers that come with the package."""
    return sorted(folder.parent.name for folder in RELEASED.glob(f"*/{CONFIG_NAME}"))


def _released(name: str, revision: str | None) -> Path:
    """The folder of a released L3RS."""
    if name not in released_names():
        raise ArtifactError(
            f"There is no folder {short(name)}, and no L3RS of that name comes with hf_l3rs; pass a folder, a Hub id "
            f'of the form "user/name", or one of {", ".join(released_names())}.'
        )
    if revision is not None:
        raise ArtifactError(
            f"{name} comes with hf_l3rs and has no revision {short(revision)}; leave out revision, or pass a Hub id "
            'of the form "user/name".'
        )
    return RELEASED / name


def _download(repo_id: str, revision: str | None, options: dict[str, Any]) -> Path:
    """Downloads config and weights of one commit, even while somebody pushes, into a folder of the commit's name."""
    check_request(revision, options["token"])
    local_files_only = options["local_files_only"]
    if options["force_download"] and (local_files_only or constants.is_offline_mode()):
        raise ArtifactError(
            f"force_download asks for {repo_id!r} from the Hub, but downloads are off; leave out force_download, or "
            "local_files_only and HF_HUB_OFFLINE."
        )
    with hub_errors(repo_id, revision, CONFIG_NAME, local_files_only):
        folder = Path(hf_hub_download(repo_id, CONFIG_NAME, revision=revision, **options)).parent
    with hub_errors(repo_id, revision, WEIGHTS_NAME, local_files_only):
        hf_hub_download(repo_id, WEIGHTS_NAME, revision=folder.name, **options)
    return folder


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
            names = list(header.keys())
            check_shapes(config, {name: tuple(header.get_slice(name).get_shape()) for name in names}, label)
            tensors = {name: header.get_tensor(name) for name in names}
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
