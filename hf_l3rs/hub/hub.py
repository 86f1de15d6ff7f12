"""The artefact on the Hub: load, push and pull."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import write_files
from hf_l3rs.hub.artifact import (
    CONFIG_NAME,
    README,
    RESULTS_NAME,
    WEIGHTS_NAME,
    PathLike,
    load_network,
    read_network,
)
from hf_l3rs.hub.errors import hub_errors
from hf_l3rs.learned.network import L3RSNetwork


if TYPE_CHECKING:
    from hf_l3rs.hub.card import Results

logger = logging.getLogger(__name__)


def load(
    pretrained_model_name_or_path: PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> tuple[L3RSNetwork, str | None]:
    """
    Loads the meta-weights of a folder or of a Hub repository; see [`~L3RSHubMixin.from_pretrained`].

    Returns:
        `tuple[L3RSNetwork, str | None]`: The network, and the commit that it is of, `None` for a folder.
    """
    source = os.fspath(pretrained_model_name_or_path)
    # Only a string can be a Hub id: a `Path` that does not exist is a typo, not a request.
    if os.path.exists(source) or not isinstance(pretrained_model_name_or_path, str):
        return load_network(source), None
    folder, commit_hash = _download_all(
        source,
        revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    return read_network(folder, source), commit_hash


def _download_all(repo_id: str, revision: str | None, **options: Any) -> tuple[Path, str]:
    """Downloads config and weights of one commit, even while somebody pushes. Returns their folder and the commit."""
    with hub_errors(repo_id, revision, CONFIG_NAME, options["local_files_only"]):
        folder = Path(hf_hub_download(repo_id, CONFIG_NAME, revision=revision, **options)).parent
    commit_hash = folder.name
    with hub_errors(repo_id, revision, WEIGHTS_NAME, options["local_files_only"]):
        hf_hub_download(repo_id, WEIGHTS_NAME, revision=commit_hash, **options)
    return folder, commit_hash


def _download_optional(repo_id: str, filename: str, revision: str | None, token: str | bool | None) -> Path | None:
    with hub_errors(repo_id, revision, filename):
        try:
            return Path(hf_hub_download(repo_id, filename, revision=revision, token=token))
        except LocalEntryNotFoundError:  # also an EntryNotFoundError, but means that the Hub did not answer
            raise
        except EntryNotFoundError:
            return None


def pull(
    repo_id: str,
    folder: PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    overwrite: bool = False,
) -> str:
    """
    Copies an L3RS from the Hub into a folder, after checking that it loads.

    Args:
        repo_id (`str`): Hub id, `"user/name"`.
        folder (`str` or `os.PathLike`): Made if absent.
        revision (`str`, *optional*): Branch, tag or commit; the branch `main` by default.
        token (`str` or `bool`, *optional*): As of `huggingface_hub`; the stored login by default.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace files in `folder` that differ.

    Returns:
        `str`: The commit that was copied.

    Raises:
        ArtifactError: If it cannot be had or is not a readable L3RS, or `folder` holds other files of those names.
    """
    cached, commit_hash = _download_all(repo_id, revision, token=token, local_files_only=False)
    read_network(cached, repo_id)
    files = {WEIGHTS_NAME: cached / WEIGHTS_NAME, CONFIG_NAME: cached / CONFIG_NAME}
    for name in (README, RESULTS_NAME):
        file = _download_optional(repo_id, name, commit_hash, token)
        if file is not None:
            files[name] = file
    contents = {name: file.read_bytes() for name, file in files.items()}
    for name, data in contents.items():
        target = Path(folder, name)
        if not overwrite and target.is_file() and target.read_bytes() != data:
            raise ArtifactError(
                f"{target} exists and differs from that of {repo_id}; pull into another folder, or overwrite it."
            )
    write_files(folder, contents)
    return commit_hash


def push(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload L3RS",
    create_pr: bool = False,
) -> str:
    """
    Uploads the L3RS in a folder in one commit: config, weights, measured results and card. What a person wrote into
    the card is kept: the folder's own text if it has any, else that on the Hub.

    Args:
        folder (`str` or `os.PathLike`): What [`~L3RSHubMixin.save_pretrained`] wrote.
        repo_id (`str`): Hub id, `"user/name"`; the repository is made if absent.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`str` or `bool`, *optional*): As of `huggingface_hub`; the stored login by default.
        revision (`str`, *optional*): Branch, made if absent; `main` by default.
        commit_message (`str`, *optional*, defaults to `"Upload L3RS"`): First line of the commit.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request instead.

    Returns:
        `str`: URL of the commit.

    Raises:
        ArtifactError: If the folder is not a readable L3RS, its results are of other meta-weights, or the Hub refuses.
    """
    from hf_l3rs.hub.card import combine_cards, generate_model_card, read_card

    folder = Path(folder)
    network = load_network(folder)
    own_results = _matching_results(folder / RESULTS_NAME, network, strict=True)
    api = HfApi(token=token)
    with hub_errors(repo_id, revision, README):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    remote_card, remote_results = (
        _download_optional(repo_id, name, revision, token) for name in (README, RESULTS_NAME)
    )
    # Results are kept with the meta-weights that they were measured with, and go when those are replaced.
    results = own_results or (_matching_results(remote_results, network) if remote_results else None)
    existing = combine_cards(read_card(folder / README), read_card(remote_card))
    card = generate_model_card(network.config, results, repo_id=repo_id, existing=existing)
    names = [CONFIG_NAME, WEIGHTS_NAME, *([RESULTS_NAME] if own_results else [])]
    operations: list[Any] = [CommitOperationAdd(name, (folder / name).read_bytes()) for name in names]
    operations.append(CommitOperationAdd(README, str(card).encode()))
    if results is None and remote_results is not None:
        operations.append(CommitOperationDelete(RESULTS_NAME))
    with hub_errors(repo_id, revision, README):
        commit = api.create_commit(
            repo_id, operations, commit_message=commit_message, revision=revision, create_pr=create_pr
        )
    return commit.pr_url or commit.commit_url


def _matching_results(file: Path, network: L3RSNetwork, strict: bool = False) -> Results | None:
    """Reads results if they were measured with these meta-weights; others must not be shown as if they were theirs."""
    from hf_l3rs.hub.card import read_results

    if not file.is_file():
        return None
    results = read_results(file)
    if results.fingerprint == network.fingerprint():
        return results
    message = f"{file} was measured with meta-weights {results.fingerprint}, but these are {network.fingerprint()}"
    if strict:
        raise ArtifactError(f"{message}; measure again, or remove the file.")
    logger.warning("%s; the card leaves it out.", message)
    return None
