"""A learned optimizer as it is shared: meta-weights, configuration and card, with no optimizer around them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_l3rs.errors import ArtifactError, StorageError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.artifact import (
    README,
    RELEASED,
    RESULTS_NAME,
    load_network,
    network_files,
    picture_in,
    released_names,
    save_network,
)
from hf_l3rs.hub.card import generate_model_card, read_card
from hf_l3rs.hub.connection import is_name, refuse_missing_path
from hf_l3rs.hub.publish import download, push
from hf_l3rs.hub.results import read_results_of
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.validation import short


@dataclass(frozen=True)
class L3RSArtifact:
    """
    What a folder or a Hub repository holds of an L3RS.

    Args:
        network ([`L3RSNetwork`]): The meta-weights, which know their configuration.
        commit_hash (`str`, *optional*): The Hub's commit that it was loaded from.

    Example:

    ```python
    artifact = L3RSArtifact.from_pretrained("user/name", revision="v1")
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
                A folder, the name of a released L3RS, which comes with the package, such as `"l3rs-universal-start"`,
                or the id of a Hub repository, `"user/name"`.
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
                f"An L3RS is loaded from a folder or by its name or Hub id, got {short(source)}; pass one of the two."
            )
        # Only a string can be a Hub id: a `Path` that does not exist is a typo, not a request.
        if os.path.exists(source) or not isinstance(source, str):
            return cls(load_network(source))
        if source in released_names():
            if revision is not None:
                raise ArtifactError(
                    f"{source} comes with hf_l3rs and has no revision {short(revision)}; leave out revision, or pass "
                    'a Hub id of the form "user/name".'
                )
            return cls(load_network(RELEASED / source, source))
        if is_name(source):
            raise ArtifactError(
                f"There is no folder {short(source)}, and no L3RS of that name comes with hf_l3rs; pass a folder, a "
                f'Hub id of the form "user/name", or one of {", ".join(released_names())}.'
            )
        refuse_missing_path(source)
        folder, commit_hash = download(
            source,
            revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        return cls(load_network(folder, source), commit_hash)

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
            repo_id (`str`, *optional*):
                Hub id for the card's examples and for `push_to_hub`; by default the name that a card there has, and
                the folder's.
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
        card = generate_model_card(
            self.config,
            results,
            repo_id=repo_id,
            existing=read_card(folder / README),
            picture=picture_in(folder),
        )
        write_files(folder, {**files, README: str(card).encode()})
        if not push_to_hub:
            return None
        return push(folder, repo_id or folder.resolve().name, **push_to_hub_kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads config, weights and card in one commit; see [`~hf_l3rs.hub.publish.push`], which takes a folder."""
        with TemporaryDirectory() as folder:
            save_network(self.network, folder)
            return push(folder, repo_id, **kwargs)
