"""Writing files so that a reader never sees half of one, and so that what was written outlives a power cut."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hf_l3rs.errors import StorageError


PathLike = str | os.PathLike[str]


def write_files(folder: PathLike, contents: Mapping[str, bytes]) -> None:
    """
    Writes files into a folder. All are written in full under temporary names first and only then take their places,
    so that a failure leaves the old files as they were.

    Args:
        folder (`str` or `os.PathLike`): Made if absent.
        contents (`Mapping[str, bytes]`): File names to contents, in the order in which they take their places.

    Raises:
        StorageError: If they cannot be written.
    """
    folder = Path(folder)
    pending = {name: folder / f".{name}.{uuid.uuid4().hex}.tmp" for name in contents}
    with _one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in contents:
            if (folder / name).is_dir():  # found before the first file is replaced, not after
                raise IsADirectoryError(f"{name} is a folder")
        try:
            for name, data in contents.items():
                _write(pending[name], data)
            for name, temporary in pending.items():
                os.replace(temporary, folder / name)
            _sync_folder(folder)
        finally:
            for temporary in pending.values():
                temporary.unlink(missing_ok=True)


def write_folder(folder: PathLike, contents: Mapping[str, bytes]) -> None:
    """
    Writes a folder that appears whole or not at all.

    Args:
        folder (`str` or `os.PathLike`): Must not exist; the folder above it is made if absent.
        contents (`Mapping[str, bytes]`): File names to contents.

    Raises:
        StorageError: If it cannot be written. Nothing is left of it then.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    with _one_sentence(folder):
        try:
            partial.mkdir(parents=True)
            for name, data in contents.items():
                _write(partial / name, data)
            _sync_folder(partial)
            os.rename(partial, folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def append_line(file: PathLike, line: str) -> None:
    """
    Adds a line to a file, at once and durably. A process that is killed meanwhile leaves at most half a last line.

    Raises:
        StorageError: If it cannot be written.
    """
    with _one_sentence(Path(file)), open(file, "ab") as stream:
        stream.write(f"{line}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())


def _write(file: Path, data: bytes) -> None:
    # Opened by plain `open`, unlike a tempfile, so that the file gets the permissions that the user's umask asks for.
    with open(file, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, too: a file that is on disk under no name is lost all the same."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and needs no such call
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_sentence(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{place} cannot be written ({error.strerror or error}); free the place or some disk space, or choose "
            "another."
        ) from error
