"""Where a name leads, a folder or the Hub, and what the Hub's refusals mean, each in one sentence."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, constants
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
_VISIBLE = re.compile("[!-~]+")  # ASCII without spaces and control characters
_STATUS = {
    401: "it needs a valid token; run `hf auth login`",
    403: "your token may not do this; use one that has the right, such as a write token for a push",
    404: "there is nothing of that name that you may read; check it for a typo",
    429: "it was asked too often; wait some minutes, or run `hf auth login`",
}


@contextmanager
def hub_errors(
    repo_id: str, revision: str | None, filename: str | None = None, local_files_only: bool = False
) -> Iterator[None]:
    """
    Turns every error that `huggingface_hub` raises inside into an `ArtifactError`.

    Args:
        repo_id (`str`): What was asked for, as the user wrote it.
        revision (`str`, *optional*): As the user wrote it.
        filename (`str`, *optional*): The file that was wanted; `None` for an upload.
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
        kind = "a text that is no token" if isinstance(token, str) else type(token).__name__
        raise ArtifactError(
            f"token must be a Hub token without spaces or line breaks, true or false, got {kind}; strip it, or run "
            "`hf auth login` and leave it out."
        )


def _explain(
    error: Exception, repo_id: str, revision: str | None, filename: str | None, local_files_only: bool
) -> str:
    if type(error) is ValueError and isinstance(error.__cause__, Exception):
        error = error.__cause__  # force_download hides what went wrong
    place = f"{repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    if isinstance(error, HFValidationError):
        if os.path.isdir(repo_id):
            return f'{repo_id!r} is a folder, but a Hub id of the form "user/name" is needed here; pass one.'
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
    if isinstance(error, OfflineModeIsEnabled):
        return f"The Hub is off because HF_HUB_OFFLINE is set; unset it to reach {place}."
    if isinstance(error, LocalEntryNotFoundError) and (local_files_only or constants.is_offline_mode()):
        return f"{filename} of {place} is not in the cache and downloads are off; load it once while online."
    if isinstance(error, LocalEntryNotFoundError) or _is_unanswered(error):
        missing = "a push needs it" if filename is None else f"{place} is not in the cache"
        fix = "" if filename is None else ", or pass a local folder"
        return f"The Hub ({constants.ENDPOINT}) does not answer, and {missing}; check the connection{fix}."
    if isinstance(error, EntryNotFoundError):
        return f"{place} on the Hub has no {filename}, so it is not an L3RS; pass the id of a learned optimizer."
    if isinstance(error, LocalTokenNotFoundError):
        return "A token was asked for but none is stored; run `hf auth login`."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        cause = _STATUS.get(status) or (
            "it has a fault of its own; try again later" if status >= 500 else "check what was passed"
        )
        return f"The Hub refused the request for {place} with HTTP {status}: {cause}."
    return (
        f"{place} cannot be exchanged with the Hub ({one_line(error) or type(error).__name__}); correct what was "
        "passed, or choose another cache_dir."
    )


def _is_unanswered(error: Exception) -> bool:
    # huggingface_hub 1 asks once more with the HTTP client that it closed after a refused connection
    is_closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)
    return is_closed or (isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError))


def is_repo_id(name: str) -> bool:
    """Returns whether a name has the form of a repository's, `"name"` or `"owner/name"`."""
    return re.fullmatch(r"\w[\w.-]*(?:/\w[\w.-]*)?", name) is not None


def hub_answers(repo_id: str, repo_type: str = "model", token: str | bool | None = None) -> bool:
    """
    Returns whether downloads are on and the Hub answers a request for a repository, if only that there is none. Where
    it does not, the libraries that download can be told to use their caches: they ask again and again for half a
    minute. The Hub has as much time as `HF_HUB_ETAG_TIMEOUT` says, 10 seconds by default.
    """
    if constants.is_offline_mode():
        return False
    timeout = float(constants.HF_HUB_ETAG_TIMEOUT)
    try:
        HfApi(token=token).repo_info(repo_id, repo_type=repo_type, timeout=timeout)
    except (OSError, RuntimeError, ValueError, HTTPError) as error:
        return not (_is_unanswered(error) or isinstance(error, TimeoutError | ConnectionError))
    return True


def out_of_reach(name: str) -> str:
    """Returns the sentence about a name that is no folder and not in the cache, where the Hub does not help either."""
    obstacle = "downloads are off" if constants.is_offline_mode() else f"{constants.ENDPOINT} does not answer"
    return (
        f"There is no folder {name!r}, and if it is on the Hub, it is not in the cache and {obstacle}; check the "
        "spelling and the connection, or give a local folder."
    )


_BEGINS_A_PATH = re.compile(r"\.{0,2}[/\\]|~")
_MAX_NEIGHBOURS = 1000  # folders that are looked at for a similar name


def refuse_missing_path(name: str) -> None:
    """
    Refuses a path that does not exist: what begins as one or has more than one slash, so that it is no Hub id, or
    what is in a folder that exists and may also be a Hub id, if the Hub does not answer.

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
    if slash and os.path.isdir(first) and not hub_answers(name):
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
