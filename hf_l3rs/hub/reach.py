"""Whether something is on the Hub at all, and whether the Hub answers."""

from __future__ import annotations

import re

from huggingface_hub import constants, get_session

from hf_l3rs.hub.errors import HTTPError


PROBE_TIMEOUT = 5.0  # seconds


def is_repo_id(name: str) -> bool:
    """Returns whether a name has the form of a repository's, `"name"` or `"owner/name"`."""
    return re.fullmatch(r"\w[\w.-]*(?:/\w[\w.-]*)?", name) is not None


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
