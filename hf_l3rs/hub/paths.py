"""Tells a mistyped folder from a Hub id at once; a Hub that cannot be reached takes long to say so."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.reach import hub_answers
from hf_l3rs.validation import short


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
