"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """
    Writes files into a folder. All are written in full under temporary names first and only then take their places,
    so that a failure leaves the old files as they were.

    Args:
        folder (`str` or `os.PathLike`): Made if absent.
        contents (`Mapping[str, bytes]`): File names to contents, in the order in which they take their places.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Opened by plain `open`, unlike a tempfile, so that the file gets the permissions that the user's umask asks for.
    pending = {name: folder / f".{name}.{uuid.uuid4().hex}.tmp" for name in contents}
    try:
        for name, data in contents.items():
            with open(pending[name], "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, temporary in pending.items():
            os.replace(temporary, folder / name)
    finally:
        for temporary in pending.values():
            temporary.unlink(missing_ok=True)
