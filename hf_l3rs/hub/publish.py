"""The artefact on the Hub: download, push and pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.artifact import (
    CONFIG_NAME,
    PICTURE_NAME,
    README,
    RESULTS_NAME,
    WEIGHTS_NAME,
    load_network,
    picture_in,
)
from hf_l3rs.hub.card import combine_cards, generate_model_card, read_card
from hf_l3rs.hub.connection import check_request, hub_errors
from hf_l3rs.hub.results import read_results_of


# With so many attempts, a push loses only to somebody who pushes all the time.
MAX_ATTEMPTS = 5
_CONFLICT, _PRECONDITION_FAILED = 409, 412


def download(
    repo_id: str,
    revision: str | None = None,
    *,
    token: str | bool | None = None,
    cache_dir: PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> tuple[Path, str]:
    """
    Downloads config and weights of one commit, even while somebody pushes; see
    [`~hf_l3rs.L3RSArtifact.from_pretrained`].

    Returns:
        `tuple[Path, str]`: The folder that they are in, and the commit.

    Raises:
        ArtifactError: If they cannot be had.
    """
    check_request(revision, token)
    if force_download and (local_files_only or constants.is_offline_mode()):
        raise ArtifactError(
            f"force_download asks for {repo_id!r} from the Hub, but downloads are off; leave out force_download, or "
            "local_files_only and HF_HUB_OFFLINE."
        )
    options: dict[str, Any] = {
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "force_download": force_download,
    }
    with hub_errors(repo_id, revision, CONFIG_NAME, local_files_only):
        folder = Path(hf_hub_download(repo_id, CONFIG_NAME, revision=revision, **options)).parent
    commit_hash = folder.name
    with hub_errors(repo_id, revision, WEIGHTS_NAME, local_files_only):
        hf_hub_download(repo_id, WEIGHTS_NAME, revision=commit_hash, **options)
    return folder, commit_hash


def _download_optional(repo_id: str, filename: str, commit_hash: str | None, token: str | bool | None) -> Path | None:
    with hub_errors(repo_id, commit_hash, filename):
        try:
            return Path(hf_hub_download(repo_id, filename, revision=commit_hash, token=token))
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
        StorageError: If `folder` cannot be written.
    """
    cached, commit_hash = download(repo_id, revision, token=token)
    load_network(cached, repo_id)
    files: dict[str, Path | None] = {WEIGHTS_NAME: cached / WEIGHTS_NAME, CONFIG_NAME: cached / CONFIG_NAME}
    files |= {
        name: _download_optional(repo_id, name, commit_hash, token) for name in (README, RESULTS_NAME, PICTURE_NAME)
    }
    contents = {name: file.read_bytes() for name, file in files.items() if file is not None}
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

    Returns:
        `str`: URL of the commit.

    Raises:
        ArtifactError: If the folder is not a readable L3RS, its results are of other meta-weights, or the Hub refuses.
    """
    check_request(revision, token)
    own = _Folder(Path(folder))
    api = HfApi(token=token)
    with hub_errors(repo_id, revision, README):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    for _ in range(MAX_ATTEMPTS):
        with hub_errors(repo_id, revision, README):
            parent = api.repo_info(repo_id, revision=revision).sha
        operations = own.operations(repo_id, parent, token)
        with hub_errors(repo_id, revision, README):
            try:
                commit = api.create_commit(
                    repo_id,
                    operations,
                    commit_message=commit_message,
                    revision=revision,
                    create_pr=create_pr,
                    parent_commit=parent,
                )
            except HfHubHTTPError as error:
                if error.response.status_code not in (_CONFLICT, _PRECONDITION_FAILED):
                    raise
            else:
                return commit.pr_url or commit.commit_url
    raise ArtifactError(
        f"{repo_id!r} changed on the Hub during each of {MAX_ATTEMPTS} attempts to push; push again when nobody else "
        "does."
    )


class _Folder:
    """What is pushed, read and checked before anything is made on the Hub."""

    def __init__(self, folder: Path) -> None:
        network = load_network(folder)
        self.config, self.fingerprint = network.config, network.fingerprint()
        self.results = read_results_of(self.fingerprint, folder / RESULTS_NAME, strict=True)
        self.card = read_card(folder / README)
        generate_model_card(self.config, self.results, existing=self.card)
        self.picture = picture_in(folder)
        names = [CONFIG_NAME, WEIGHTS_NAME, *([RESULTS_NAME] if self.results else [])]
        names += [self.picture] if self.picture else []
        self.files = {name: (folder / name).read_bytes() for name in names}

    def operations(self, repo_id: str, parent: str | None, token: str | bool | None) -> list[Any]:
        """Returns what turns the commit `parent` into one that holds this L3RS."""
        card, results = (_download_optional(repo_id, name, parent, token) for name in (README, RESULTS_NAME))
        try:
            # Results are kept with the meta-weights that they were measured with, and go when those are replaced.
            kept = read_results_of(self.fingerprint, results) if results and not self.results else None
            existing = combine_cards(self.card, read_card(card))
            text = generate_model_card(
                self.config,
                self.results or kept,
                repo_id=repo_id,
                existing=existing,
                picture=self.picture,
            )
        except ArtifactError as error:
            raise ArtifactError(f"A file of {repo_id!r} on the Hub is in the way of a push: {error}") from error
        files = {**self.files, README: str(text).encode()}
        operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
        if results is not None and not (self.results or kept):
            operations.append(CommitOperationDelete(RESULTS_NAME))
        return operations
