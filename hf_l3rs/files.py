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
    """Writes files into a folder, made if absent: each whole, and after a failure all old ones are as they were."""
    folder = Path(folder)
    with _one_sentence(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError("a file stands where the folder should be")
        folder.mkdir(parents=True, exist_ok=True)
        for name in contents:
            if (folder / name).is_dir():  # found before the first file is replaced, not after
                raise IsADirectoryError(f"{name} is a folder")
        unique = uuid.uuid4().hex
        new, old = ({name: folder / f".{name}.{unique}.{kind}" for name in contents} for kind in ("tmp", "old"))
        try:
            for name, data in contents.items():
                _write(new[name], data)
            _replace_all(folder, new, old)
        finally:
            for temporary in (*new.values(), *old.values()):
                temporary.unlink(missing_ok=True)


def _replace_all(folder: Path, new: Mapping[str, Path], old: Mapping[str, Path]) -> None:
    """Moves the new files into their places, and the old ones back if that fails half way."""
    for name in new:
        if (folder / name).exists():
            try:
                os.link(folder / name, old[name])
            except OSError:  # a file system without hard links
                shutil.copy2(folder / name, old[name])
    replaced: list[str] = []
    try:
        for name in new:
            os.replace(new[name], folder / name)
            replaced.append(name)
        _sync_folder(folder)
    except BaseException:
        for name in replaced:
            if old[name].exists():
                os.replace(old[name], folder / name)
            else:
                (folder / name).unlink()
        raise


def write_folder(folder: PathLike, contents: Mapping[str, bytes]) -> None:
    """Writes a folder that must not exist, and that appears whole or not at all."""
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
    """Adds a line to a file durably. Half a line of a process that was killed stays on a line of its own."""
    file = Path(file)
    with _one_sentence(file):
        is_new = not file.exists()
        with open(file, "a+b") as stream:
            if stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else f"\n{line}"
            stream.write(f"{line}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            _sync_folder(file.parent)


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
    except (OSError, ValueError) as error:  # the latter from a path that no file system has
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"{place} cannot be written ({reason}); free the place or some disk space, or choose another."
        ) from error
