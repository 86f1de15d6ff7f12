"""Tells a mistyped folder from a Hub id at once; a Hub that cannot be reached takes long to say so."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_l3rs.errors import ArtifactError
from hf_l3rs.markdown import one_line
from hf_l3rs.validation import short


# The base class of the HTTP library's errors; which library that is depends on the version of huggingface_hub.
HTTPError = cast("type[Exception]", HfHubHTTPError.__mro__[1])
# ASCII without spaces and control characters.
_VISIBLE = re.compile("[!-~]+")


@contextmanager
def hub_errors(repo_id: str, revision: str | None, filename: str, local_files_only: bool = False) -> Iterator[None]:
    """
    Turns every error that `huggingface_hub` raises inside into an `ArtifactError`.

    Args:
        repo_id (`str`): What was asked for, as the user wrote it.
        revision (`str`, *optional*): As the user wrote it.
        filename (`str`): The file that was wanted.
        local_files_only (`bool`, *optional*, defaults to `False`): Whether the user ruled out downloads.
    """
    try:
        yield
    except ArtifactError:  # which is an OSError, too, but says already what is wrong
        raise
    except (OSError, RuntimeError, ValueError, TypeError, EntryNotFoundError, HTTPError) as error:
        raise ArtifactError(_explain(error, repo_id, revision, filename, local_files_only)) from error


def check_request(revision: str | None, token: str | bool | None) -> None:
    """
    Refuses what would become a request that no library sends.

    Raises:
        ArtifactError: If `revision` or `token` cannot be one. The token is not shown.
    """
    if not (revision is None or (isinstance(revision, str) and _VISIBLE.fullmatch(revision))):
        raise ArtifactError(f"revision must be a branch, tag or commit without spaces, got {short(revision)}.")
    if not (token is None or isinstance(token, bool) or (isinstance(token, str) and _VISIBLE.fullmatch(token))):
        kind = "text that no token is" if isinstance(token, str) else type(token).__name__
        raise ArtifactError(
            f"token must be a Hub token without spaces or line breaks, true or false, got {kind}; strip it, or run "
            "`hf auth login` and leave it out."
        )


def _explain(error: Exception, repo_id: str, revision: str | None, filename: str, local_files_only: bool) -> str:
    if type(error) is ValueError and isinstance(error.__cause__, Exception):
        error = error.__cause__  # force_download hides what went wrong
    place = f"{repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    is_offline = local_files_only or constants.is_offline_mode()
    if isinstance(error, HFValidationError) and os.path.isdir(repo_id):
        return f'{repo_id!r} is a folder, but only a Hub id of the form "user/name" will do here; pass one.'
    if isinstance(error, HFValidationError):
        return f'{repo_id!r} is neither a local folder nor a Hub id of the form "user/name"; check it for a typo.'
    if isinstance(error, GatedRepoError):
        return f"{repo_id!r} is gated: accept its terms at {constants.ENDPOINT}/{repo_id} and run `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is neither a local folder {repo_id!r} nor a Hub repository of that id that you may read; check it "
            "for a typo, and if it is private run `hf auth login` or pass a token."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id!r} has no revision {revision!r}; pass an existing branch, tag or commit."
    if isinstance(error, LocalEntryNotFoundError) and is_offline:
        return f"{filename} of {place} is not in the cache and downloads are off; load it once while online."
    if isinstance(error, OfflineModeIsEnabled):
        return f"The Hub is off because HF_HUB_OFFLINE is set; unset it to reach {place}."
    is_unanswered = isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError)
    # huggingface_hub 1 asks once more with the HTTP client that it closed after a refused connection
    is_unanswered |= isinstance(error, RuntimeError) and "client has been closed" in str(error)
    if is_unanswered or isinstance(error, LocalEntryNotFoundError):
        return (
            f"The Hub ({constants.ENDPOINT}) cannot be reached and {place} is not in the cache; check the connection, "
            "or pass a local folder."
        )
    if isinstance(error, EntryNotFoundError):
        return f"{place} on the Hub has no {filename}, so it is not an L3RS; pass the id of a learned optimizer."
    if isinstance(error, LocalTokenNotFoundError):
        return "A token was asked for but none is stored; run `hf auth login`."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"The Hub refused the request for {place} with HTTP {status}; check what your token may do, or retry."
    reason = one_line(error) or type(error).__name__
    return (
        f"{place} cannot be exchanged with the Hub ({reason}); correct what was passed, or choose another cache_dir."
    )


PROBE_TIMEOUT = 5.0  # seconds


def is_repo_id(name: str) -> bool:
    """Returns whether a name has the form of a repository's, `"name"` or `"owner/name"`."""
    return re.fullmatch(r"\w[\w.-]*(?:/\w[\w.-]*)?", name) is not None


def is_name(name: str) -> bool:
    """Returns whether a name is a bare one, with neither a slash nor anything else of a path."""
    return re.fullmatch(r"\w[\w.-]*", name) is not None


def hub_answers() -> bool:
    """
    Returns whether downloads are on and the Hub can be reached. The libraries that download ask an unreachable Hub
    again and again for half a minute, for every file; whoever asks here first can tell them to use their caches.
    """
    if constants.is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_TIMEOUT)
    except (HTTPError, OSError):
        return False
    return True


def out_of_reach(name: str) -> str:
    """Returns the sentence about a name that is no folder and not in the cache, where the Hub does not help either."""
    obstacle = "downloads are off" if constants.is_offline_mode() else f"{constants.ENDPOINT} does not answer"
    return (
        f"There is no folder {name!r}, and if it is on the Hub, it is not in the cache and {obstacle}; check the "
        "spelling and the connection, or give a local folder."
    )


_BEGINS_A_PATH = re.compile(r"\.{0,2}[/\\]|~")
_MAX_NEIGHBOURS = 1000  # of which some may be meant


def refuse_missing_path(name: str) -> None:
    """
    Refuses what was meant as a path, and is none that exists: it begins as one or has more than one slash, so that it
    is no Hub id, or its first part is a folder that is there, and the Hub does not answer.

    Args:
        name (`str`): A folder's name, or a Hub id.

    Raises:
        ArtifactError: With folders of similar names, if there are any.
    """
    if os.path.exists(name):
        return
    if _BEGINS_A_PATH.match(name) or name.count("/") > 1:
        raise ArtifactError(
            f'{short(name)} is neither a local folder nor a Hub id of the form "user/name"{similar_folders(name)}; '
            "check it for a typo."
        )
    first, slash, _ = name.partition("/")
    if slash and os.path.isdir(first) and not hub_answers():  # which would know whether it is an id
        raise ArtifactError(
            f"There is no local folder {short(name)}, though there is a folder {short(first)}{similar_folders(name)}; "
            "check it for a typo, or, if it is a Hub id, start where no such folder is."
        )


def similar_folders(name: str) -> str:
    """Returns folders that may have been meant, in brackets; nothing where there are none."""
    path = Path(name)
    try:
        names = [each.name for _, each in zip(range(_MAX_NEIGHBOURS), path.parent.iterdir()) if each.is_dir()]
    except (OSError, ValueError):
        return ""
    close = [str(path.parent / each) for each in difflib.get_close_matches(path.name, sorted(names))]
    return f" (similar: {', '.join(map(short, close))})" if close else ""
