"""From the output folder of a run to a Hub repository: results beside the L3RS, one card, one commit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.artifact import (
    CONFIG_NAME,
    L3RS_NAME,
    PICTURE_NAME,
    README,
    RELEASED,
    RESULTS_NAME,
    WEIGHTS_NAME,
    L3RSArtifact,
    load_network,
    picture_in,
    released_names,
    save_network,
)
from hf_l3rs.hub.card import combine_cards, generate_model_card, read_card
from hf_l3rs.hub.connection import check_request, hub_errors
from hf_l3rs.hub.results import Results, merge_results, read_results_of, write_results
from hf_l3rs.optimizer.network import L3RSNetwork


BEHAVIOUR_NAME = "behaviour.json"  # results without entries: what was seen over a run, in two sentences

# With so many attempts, a push loses only to somebody who pushes all the time.
MAX_ATTEMPTS = 5
_CONFLICT, _PRECONDITION_FAILED = 409, 412


def push(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload L3RS",
    create_pr: bool = False,
    license: str | None = None,
) -> str:
    """
    Uploads the L3RS in a folder in one commit: config, weights, measured results, their picture and card. What a
    person wrote into the card is kept: the folder's own text if it has any, else that on the Hub, also if it gets
    there meanwhile.

    Args:
        folder (`str` or `os.PathLike`): What [`~hf_l3rs.L3RSArtifact.save_pretrained`] wrote.
        repo_id (`str`): Hub id, `"user/name"`; the repository is made if absent.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`str` or `bool`, *optional*): As of `huggingface_hub`; the stored login by default.
        revision (`str`, *optional*): Branch, made if absent; `main` by default.
        commit_message (`str`, *optional*, defaults to `"Upload L3RS"`): First line of the commit.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request instead.
        license (`str`, *optional*): Licence in the card, such as `"apache-2.0"`; that of the card there by default.

    Returns:
        `str`: URL of the commit.

    Raises:
        ArtifactError: If the folder is not a readable L3RS, its results are of other meta-weights, or the Hub refuses.
    """
    check_request(revision, token)
    own = _Folder(Path(folder), license)
    api = HfApi(token=token)
    with hub_errors(repo_id, revision):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        for _ in range(MAX_ATTEMPTS):
            parent = api.repo_info(repo_id, revision=revision).sha
            options: dict[str, Any] = {"revision": revision, "create_pr": create_pr, "parent_commit": parent}
            operations = own.operations(repo_id, parent, token)
            try:
                commit = api.create_commit(repo_id, operations, commit_message=commit_message, **options)
            except HfHubHTTPError as error:
                if error.response.status_code not in (_CONFLICT, _PRECONDITION_FAILED):
                    raise
            else:
                return commit.pr_url or commit.commit_url
    raise ArtifactError(
        f"{repo_id!r} changed on the Hub during each of {MAX_ATTEMPTS} attempts to push; push again when nobody else "
        "does."
    )


def push_network(network: L3RSNetwork, repo_id: str, **kwargs: Any) -> str:
    """Uploads meta-weights without a folder of their own; see [`push`]."""
    with TemporaryDirectory() as folder:
        save_network(network, folder)
        return push(folder, repo_id, **kwargs)


class _Folder:
    """What is pushed, read and checked before anything is made on the Hub."""

    def __init__(self, folder: Path, license: str | None) -> None:
        network = load_network(folder)
        self.config, self.fingerprint, self.license = network.config, network.fingerprint(), license
        results = folder / RESULTS_NAME
        self.results = read_results_of(self.fingerprint, results, strict=True) if results.is_file() else None
        self.card = read_card(folder / README)
        generate_model_card(self.config, self.results, existing=self.card)
        self.picture = picture_in(folder)
        names = (CONFIG_NAME, WEIGHTS_NAME, RESULTS_NAME if self.results else None, self.picture)
        self.files = {name: (folder / name).read_bytes() for name in names if name}

    def operations(self, repo_id: str, parent: str | None, token: str | bool | None) -> list[Any]:
        """Returns what turns the commit `parent` into one that holds this L3RS."""
        card, results = (_download_optional(repo_id, name, parent, token) for name in (README, RESULTS_NAME))
        try:
            # Results are kept with the meta-weights that they were measured with, and go when those are replaced.
            kept = read_results_of(self.fingerprint, results) if results and not self.results else None
            text = generate_model_card(
                self.config,
                self.results or kept,
                repo_id=repo_id,
                existing=combine_cards(self.card, read_card(card)),
                picture=self.picture,
                license=self.license,
            )
        except ArtifactError as error:
            raise ArtifactError(f"A file of {repo_id!r} on the Hub is in the way of a push: {error}") from error
        files = {**self.files, README: str(text).encode()}
        operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
        if results is not None and not (self.results or kept):
            operations.append(CommitOperationDelete(RESULTS_NAME))
        return operations


def _download_optional(repo_id: str, filename: str, commit_hash: str | None, token: str | bool | None) -> Path | None:
    try:
        return Path(hf_hub_download(repo_id, filename, revision=commit_hash, token=token))
    except LocalEntryNotFoundError:  # also an EntryNotFoundError, but means that the Hub did not answer
        raise
    except EntryNotFoundError:
        return None


def gather_release(folder: PathLike, more: Iterable[PathLike] = ()) -> Path:
    """
    Brings a release together: the L3RS of a folder, and all results of its meta-weights that are found with it.

    Args:
        folder (`str` or `os.PathLike`):
            An L3RS, the name of a released one, or the output folder of a meta-training or an evaluation. In such a
            folder, and in those in it, results are looked for; those of other meta-weights are left out, with a
            warning.
        more (`Iterable`, *optional*): Further results: files, or output folders of evaluations.

    Returns:
        `Path`: The folder of the L3RS, which holds the results now, and a card that shows them.

    Raises:
        ArtifactError: If there is no readable L3RS or file of results, or `more` has some of other meta-weights.
        StorageError: If the folder of the L3RS cannot be written.
    """
    if not os.path.exists(folder) and str(folder) in released_names():
        return RELEASED / folder
    folder, more = Path(folder), list(more)
    is_run = not (folder / CONFIG_NAME).exists() and (folder / L3RS_NAME).is_dir()
    home = folder / L3RS_NAME if is_run else folder
    if not is_run and not more:  # as it was saved, which is checked when it is pushed
        return home
    network = load_network(home)
    found = [file for file in _results_in(folder) if file.parent != home] if is_run else []
    named = [Path(path, RESULTS_NAME) if os.path.isdir(path) else Path(path) for path in more]
    fingerprint = network.fingerprint()
    parts = {file: read_results_of(fingerprint, file) for file in (home / RESULTS_NAME, *found)}
    parts |= {file: read_results_of(fingerprint, file, strict=True) for file in named}
    used = [file for file, results in parts.items() if results is not None and file.parent != home]
    _write_release(network, home, merge_results(fingerprint, parts.values()), used)
    return home


def write_release(artifact: L3RSArtifact, folder: PathLike, files: Iterable[PathLike]) -> None:
    """
    Puts an L3RS and what was measured with it into one folder. What a person wrote into a card there is kept.

    Args:
        artifact ([`~hf_l3rs.L3RSArtifact`]): The L3RS.
        folder (`str` or `os.PathLike`): Made if absent.
        files (`Iterable`): Of results. The picture beside the first of them that has one goes with it.

    Raises:
        ArtifactError: If a file cannot be read, or was measured with other meta-weights.
        StorageError: If the folder cannot be written.
    """
    paths = [Path(file) for file in files]
    _write_release(artifact.network, Path(folder), read_measured(artifact.network, paths), paths)


def read_measured(network: L3RSNetwork, files: Iterable[PathLike]) -> Results | None:
    """Reads and joins results of an L3RS, and refuses those of another; `None` if there are none."""
    fingerprint = network.fingerprint()
    return merge_results(fingerprint, [read_results_of(fingerprint, file, strict=True) for file in files])


def picture_beside(files: Iterable[Path]) -> dict[str, bytes]:
    """Returns the picture beside the first file that has one, by its name."""
    pictures = [file.with_name(PICTURE_NAME) for file in files if file.with_name(PICTURE_NAME).is_file()]
    return {PICTURE_NAME: pictures[0].read_bytes()} if pictures else {}


def _write_release(network: L3RSNetwork, home: Path, results: Results | None, files: Iterable[Path]) -> None:
    if results is not None:
        write_results(results, home / RESULTS_NAME)
    write_files(home, picture_beside(files))
    L3RSArtifact(network).save_pretrained(home)


def _results_in(folder: Path) -> Iterator[Path]:
    for pattern in ("", "*/"):
        for name in (RESULTS_NAME, BEHAVIOUR_NAME):
            yield from sorted(folder.glob(f"{pattern}{name}"))
