"""An L3RS as it is shared: loaded strictly from a folder, the package or the Hub, saved, and pushed in one commit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open

from hf_l3rs.errors import ArtifactError, ConfigError, StorageError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.card import combine_cards, generate_model_card, read_card
from hf_l3rs.hub.connection import check_request, hub_errors, is_repo_id, refuse_missing_path
from hf_l3rs.hub.results import merge_results, read_results_of, write_results
from hf_l3rs.markdown import one_line
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork, check_shapes, tensor_shapes
from hf_l3rs.validation import short


CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
README = "README.md"
RESULTS_NAME = "results.json"
PICTURE_NAME = "curves.png"  # of the results; optional
BEHAVIOUR_NAME = "behaviour.json"  # results without entries: what the L3RS was seen to do over a run
L3RS_NAME = "l3rs"  # the folder of the L3RS in the output folder of a run
RELEASED = Path(__file__).parents[1] / "released"  # a folder for each L3RS that comes with the package

MAX_ATTEMPTS = 5  # to push: it loses only to somebody who pushes all the time
_CONFLICTS = (409, 412)  # HTTP statuses
_MAX_CONFIG_SIZE = 2**23  # bytes; a configuration with as many layers as one may have is smaller


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
        check_request(revision, token)
        options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        with hub_errors(source, revision, CONFIG_NAME, local_files_only):
            folder = Path(hf_hub_download(source, CONFIG_NAME, revision=revision, **options)).parent
        with hub_errors(source, revision, WEIGHTS_NAME, local_files_only):  # of the same commit, whatever is pushed
            hf_hub_download(source, WEIGHTS_NAME, revision=folder.name, **options)
        return cls(load_network(folder, source), folder.name)

    def save_pretrained(self, save_directory: PathLike, *, repo_id: str | None = None) -> None:
        """
        Saves config, weights and card, so that `from_pretrained` gives the same meta-weights. In a card that is
        there already, what hf_l3rs generated is brought up to date and everything else is kept.

        Args:
            save_directory (`str` or `os.PathLike`): Made if absent.
            repo_id (`str`, *optional*): Hub id for the card's examples.

        Raises:
            ArtifactError: If a meta-weight is not a number, or the card or results that are there cannot be read.
            StorageError: If the folder cannot be written.
        """
        if not isinstance(save_directory, (str, os.PathLike)):
            raise StorageError(f"An L3RS is saved in a folder, got {short(save_directory)}; pass its path.")
        folder = Path(save_directory)
        files = _network_files(self.network)
        results = read_results_of(self.network.fingerprint(), folder / RESULTS_NAME)
        existing, picture = read_card(folder / README), picture_in(folder)
        card = generate_model_card(self.config, results, repo_id=repo_id, existing=existing, picture=picture)
        write_files(folder, {**files, README: str(card).encode()})

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads config, weights and card in one commit; see [`~hf_l3rs.hub.artifact.push`], which takes a folder."""
        with TemporaryDirectory() as folder:
            save_network(self.network, folder)
            return push(folder, repo_id, **kwargs)


def released_names() -> list[str]:
    """Returns the names of the learned optimizers that come with the package."""
    return sorted(folder.parent.name for folder in RELEASED.glob(f"*/{CONFIG_NAME}"))


def _released(name: str, revision: str | None) -> Path:
    """The folder of a released L3RS."""
    if name not in released_names() or revision is not None:
        raise ArtifactError(
            f"There is no folder {short(name)}, and with hf_l3rs come, each in one revision, "
            f"{', '.join(released_names())}; pass one of these without revision, a folder, or a Hub id of the form "
            '"user/name".'
        )
    return RELEASED / name


def save_network(network: L3RSNetwork, folder: PathLike) -> None:
    """Writes config and weights: the same bytes for the same network, and never half of a file."""
    write_files(folder, _network_files(network))


def _network_files(network: L3RSNetwork) -> dict[str, bytes]:
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
    """Reads what [`save_network`] wrote, strictly, in the memory of its weights; messages call the folder `source`."""
    folder, source = Path(folder), source or str(folder)
    if not os.path.isdir(folder):
        raise ArtifactError(
            f"{source} is not a folder that can be read; pass the one that L3RS.save_pretrained wrote."
        )
    config = _read_config(folder / CONFIG_NAME, source)
    label = f"{WEIGHTS_NAME} of {source}"
    try:
        with safe_open(folder / WEIGHTS_NAME, framework="pt") as header:
            names = list(header.keys())
            check_shapes(config, {name: tuple(header.get_slice(name).get_shape()) for name in names}, label)
            tensors = {name: header.get_tensor(name) for name in names}
    except ArtifactError:
        raise
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{source} has no intact {WEIGHTS_NAME} ({one_line(error)}); save or download the L3RS again."
        ) from error
    network = L3RSNetwork(config)
    network.load_tensors(tensors, label)
    return network


def _read_config(file: Path, source: str) -> L3RSConfig:
    if not file.is_file():
        inner = f"{Path(source, L3RS_NAME)}, in which it has one"
        where = inner if l3rs_of_run(file.parent) else "the folder that L3RS.save_pretrained wrote"
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
        raise ArtifactError(
            f"{source} is not an L3RS, but perhaps a model: its {CONFIG_NAME} has no format_version; pass the folder "
            "or Hub id of a learned optimizer."
        )
    try:
        config = L3RSConfig.from_dict(values)
        tensor_shapes(config)  # also refuses what is too large to be meant
        return config
    except ConfigError as error:
        raise ConfigError(f"{CONFIG_NAME} of {source}: {error}") from error


def push(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload L3RS",
    license: str | None = None,
) -> str:
    """
    Uploads the L3RS in a folder in one commit: config, weights, measured results, their picture and card. What a
    person wrote into the card is kept: the folder's own text if it has any, else that on the Hub, also if it gets
    there meanwhile. Returns the URL of the commit.

    Args:
        folder (`str` or `os.PathLike`): What [`~hf_l3rs.L3RSArtifact.save_pretrained`] wrote.
        repo_id (`str`): Hub id, `"user/name"`; the repository is made if absent.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`str` or `bool`, *optional*): As of `huggingface_hub`; the stored login by default.
        revision (`str`, *optional*): Branch, made if absent; `main` by default.
        commit_message (`str`, *optional*, defaults to `"Upload L3RS"`): First line of the commit.
        license (`str`, *optional*): Licence in the card, such as `"apache-2.0"`; that of the card there by default.
    """
    check_request(revision, token)
    own = _Upload(Path(folder), license)
    api = HfApi(token=token)
    with hub_errors(repo_id, revision):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        for _ in range(MAX_ATTEMPTS):
            parent = api.model_info(repo_id, revision=revision)
            names = {file.rfilename for file in parent.siblings or ()}.intersection((README, RESULTS_NAME))
            there = {name: api.hf_hub_download(repo_id, name, revision=parent.sha) for name in names}
            target: dict[str, Any] = {"revision": revision, "parent_commit": parent.sha}
            operations = own.operations(repo_id, there)
            try:
                return api.create_commit(repo_id, operations, commit_message=commit_message, **target).commit_url
            except HfHubHTTPError as error:
                if error.response.status_code not in _CONFLICTS:
                    raise
    raise ArtifactError(
        f"{repo_id!r} changed on the Hub during each of {MAX_ATTEMPTS} attempts to push; push again when nobody else "
        "does."
    )


class _Upload:
    """What is pushed, read and checked before anything is made on the Hub."""

    def __init__(self, folder: Path, license: str | None) -> None:
        network = load_network(folder)
        self.config, self.fingerprint, self.license = network.config, network.fingerprint(), license
        results = folder / RESULTS_NAME
        self.results = read_results_of(self.fingerprint, results, strict=True) if results.is_file() else None
        self.card, self.picture = read_card(folder / README), picture_in(folder)
        generate_model_card(self.config, self.results, existing=self.card)  # raises if it cannot be made
        names = (CONFIG_NAME, WEIGHTS_NAME, RESULTS_NAME if self.results else None, self.picture)
        self.files = {name: (folder / name).read_bytes() for name in names if name}

    def operations(self, repo_id: str, there: dict[str, str]) -> list[Any]:
        """Returns what makes a commit hold this L3RS. `there` is where card and results of its parent lie."""
        try:
            # Results are kept with the meta-weights that they were measured with, and go when those are replaced.
            replaced = RESULTS_NAME in there and self.results is None
            kept = read_results_of(self.fingerprint, there[RESULTS_NAME]) if replaced else None
            text = generate_model_card(
                self.config,
                self.results or kept,
                repo_id=repo_id,
                existing=combine_cards(self.card, read_card(there.get(README))),
                picture=self.picture,
                license=self.license,
            )
        except ArtifactError as error:
            raise ArtifactError(f"A file of {repo_id!r} on the Hub is in the way of a push: {error}") from error
        files = {**self.files, README: str(text).encode()}
        operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
        if replaced and kept is None:
            operations.append(CommitOperationDelete(RESULTS_NAME))
        return operations


def l3rs_of_run(folder: PathLike) -> Path | None:
    """Returns the folder of the L3RS in the output folder of a run; `None` for any other folder."""
    inner = Path(folder, L3RS_NAME)
    return inner if folder and (inner / CONFIG_NAME).is_file() and not Path(folder, CONFIG_NAME).exists() else None


def gather_release(folder: PathLike, more: Iterable[PathLike] = ()) -> Path:
    """
    Puts the results of an L3RS beside it, with a card that shows them, and returns its folder. Results are those in
    `more` and, of the output folder of a run, those in it and one level down, but for those of other meta-weights.
    """
    if not os.path.exists(folder) and str(folder) in released_names():
        return RELEASED / folder
    folder, inner = Path(folder), l3rs_of_run(folder)
    home = inner or folder
    named = [Path(path, RESULTS_NAME) if os.path.isdir(path) else Path(path) for path in more]
    if inner is None and not named:  # as it was saved, which is checked when it is pushed
        return home
    network = load_network(home)
    fingerprint, files = network.fingerprint(), [home / RESULTS_NAME]
    for pattern in (RESULTS_NAME, BEHAVIOUR_NAME, f"*/{RESULTS_NAME}", f"*/{BEHAVIOUR_NAME}") if inner else ():
        files += sorted(folder.glob(pattern))
    parts = {file: read_results_of(fingerprint, file, strict=file in named) for file in [*files, *named]}
    results = merge_results(fingerprint, parts.values())
    if results is not None:
        write_results(results, home / RESULTS_NAME)
    write_files(home, picture_beside(file for file, part in parts.items() if part and file.parent != home))
    L3RSArtifact(network).save_pretrained(home)
    return home


def picture_beside(files: Iterable[Path]) -> dict[str, bytes]:
    """Returns the picture beside the first file that has one, by its name."""
    pictures = [file.with_name(PICTURE_NAME) for file in files if file.with_name(PICTURE_NAME).is_file()]
    return {PICTURE_NAME: pictures[0].read_bytes()} if pictures else {}
