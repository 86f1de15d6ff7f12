"""Where a name leads, a folder or the Hub, and what the Hub's refusals mean, each in one sentence."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, constants, errors

from hf_l3rs.errors import ArtifactError
from hf_l3rs.markdown import one_line
from hf_l3rs.validation import short


# The base class of the HTTP library's errors; which library that is depends on the version of huggingface_hub.
HTTPError = cast("type[Exception]", errors.HfHubHTTPError.__mro__[1])
_REPO_ID = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
_VISIBLE = re.compile("[!-~]+")  # ASCII without spaces and control characters
_SENTENCES: dict[type[Exception], str] = {  # a class before the class that it is derived from
    errors.HFValidationError: '{id} is not a Hub id of the form "user/name"; check it for a typo.',
    errors.GatedRepoError: "{id} is gated: accept its terms at {url} and run `hf auth login`.",
    errors.RepositoryNotFoundError: "There is neither a local folder {id} nor a Hub repository of that id that you "
    "may read; check it for a typo, and if it is private run `hf auth login` or pass a token.",
    errors.RevisionNotFoundError: "{id} has no revision {revision}; pass an existing branch, tag or commit.",
    errors.OfflineModeIsEnabled: "The Hub is off because HF_HUB_OFFLINE is set; unset it to reach {place}.",
    errors.EntryNotFoundError: "{place} on the Hub has no {file}; pass the id of a repository that has.",
}
_MAX_NEIGHBOURS = 1000  # folders that are looked at for a similar name


def is_repo_id(name: str) -> bool:
    """Returns whether a name has the form of a repository's, `"name"` or `"owner/name"`."""
    return _REPO_ID.fullmatch(name) is not None


def check_request(revision: str | None, token: str | bool | None) -> None:
    """Refuses what would become a request that no library sends. The token is not shown."""
    if not (revision is None or (isinstance(revision, str) and _VISIBLE.fullmatch(revision))):
        raise ArtifactError(f"revision must be a branch, tag or commit without spaces, got {short(revision)}.")
    if not (token is None or isinstance(token, bool) or (isinstance(token, str) and _VISIBLE.fullmatch(token))):
        kind = "a text that is no token" if isinstance(token, str) else type(token).__name__
        raise ArtifactError(
            f"token must be a Hub token without spaces or line breaks, true or false, got {kind}; strip it, or run "
            "`hf auth login` and leave it out."
        )


@contextmanager
def hub_errors(
    repo_id: str, revision: str | None, filename: str | None = None, local_files_only: bool = False
) -> Iterator[None]:
    """Turns every error of `huggingface_hub` into an `ArtifactError`. Without `filename` it is that of a push."""
    try:
        yield
    except ArtifactError:  # which is an OSError, too, but says already what is wrong
        raise
    except (OSError, RuntimeError, ValueError, TypeError, errors.EntryNotFoundError, HTTPError) as error:
        raise ArtifactError(_explain(error, repo_id, revision, filename, local_files_only)) from error


def _explain(
    error: Exception, repo_id: str, revision: str | None, filename: str | None, local_files_only: bool
) -> str:
    if _is_unanswered(error) or isinstance(error, errors.LocalEntryNotFoundError):
        if filename is not None:
            return out_of_reach(repo_id, revision, local_files_only)
        return f"The Hub ({constants.ENDPOINT}) does not answer, and a push needs it; check the connection."
    place, url = _at(repo_id, revision), f"{constants.ENDPOINT}/{repo_id}"
    for kind, sentence in _SENTENCES.items():
        if isinstance(error, kind):
            return sentence.format(id=repr(repo_id), place=place, url=url, revision=repr(revision), file=filename)
    if isinstance(error, errors.HfHubHTTPError):
        why = f"{error.response.status_code} {one_line(error.server_message or '')}".strip()
        return f"The Hub refused {place} (HTTP {why}); check name and token (`hf auth login`), or try again later."
    return (
        f"{place} cannot be exchanged with the Hub ({one_line(error) or type(error).__name__}); correct what was "
        "passed, or choose another cache_dir."
    )


def _is_unanswered(error: Exception) -> bool:
    # huggingface_hub 1 asks once more with the HTTP client that it closed after a refused connection
    is_closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)
    return is_closed or (isinstance(error, HTTPError) and not isinstance(error, errors.HfHubHTTPError))


def hub_answers(repo_id: str, repo_type: str = "model") -> bool:
    """Returns whether downloads are on and the Hub answers; if not, libraries should use their caches and not wait."""
    if constants.is_offline_mode():
        return False
    try:
        HfApi().repo_info(repo_id, repo_type=repo_type, timeout=float(constants.HF_HUB_ETAG_TIMEOUT))
    except (OSError, RuntimeError, ValueError, HTTPError) as error:
        return not (_is_unanswered(error) or isinstance(error, TimeoutError | ConnectionError))
    return True


def out_of_reach(name: str, revision: str | None = None, local_files_only: bool = False) -> str:
    """Returns the sentence about a name that is no folder and not in the cache, where the Hub does not help either."""
    is_off = local_files_only or constants.is_offline_mode()
    obstacle = "downloads are off" if is_off else f"{constants.ENDPOINT} does not answer"
    return (
        f"There is no folder {_at(name, revision)}, and if it is on the Hub, it is not in the cache and {obstacle}; "
        "check the spelling and the connection, or give a local folder."
    )


def _at(name: str, revision: str | None) -> str:
    return f"{name!r}" + (f" at revision {revision!r}" if revision else "")


def refuse_missing_path(name: str) -> None:
    """Refuses what is no Hub id, or lies in a local folder while the Hub does not answer: a missing folder."""
    if not is_repo_id(name):
        raise ArtifactError(
            f'{short(name)} is neither a local folder nor a Hub id of the form "user/name"{_similar_folders(name)}; '
            "check it for a typo."
        )
    first, slash, _ = name.partition("/")
    if slash and os.path.isdir(first) and not hub_answers(name):
        raise ArtifactError(
            f"There is no local folder {short(name)}, though there is a folder {short(first)}{_similar_folders(name)};"
            " check it for a typo, or, if it is a Hub id, start where no such folder is."
        )


def _similar_folders(name: str) -> str:
    path = Path(name)
    try:
        names = [each.name for _, each in zip(range(_MAX_NEIGHBOURS), path.parent.iterdir()) if each.is_dir()]
    except (OSError, ValueError):
        return ""
    close = [str(path.parent / each) for each in difflib.get_close_matches(path.name, sorted(names))]
    return f" (similar: {', '.join(map(short, close))})" if close else ""
