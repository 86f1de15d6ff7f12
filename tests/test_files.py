"""Writing files: a reader never sees half of one, a failure changes nothing, and what was written is on disk."""

import errno
import os
import stat
from pathlib import Path

import pytest

from hf_l3rs.errors import L3RSError, StorageError
from hf_l3rs.files import append_line, write_files, write_folder


def contents(folder):
    return {file.name: file.read_bytes() if file.is_file() else None for file in Path(folder).iterdir()}


def refused(write, *args, says=""):
    with pytest.raises(StorageError) as error:
        write(*args)
    message = str(error.value)
    assert "\n" not in message and says in message and isinstance(error.value, (L3RSError, OSError))


@pytest.fixture
def calls(monkeypatch):
    """What was synced and renamed, in its order."""
    log = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def path_of(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", lambda fd: (log.append(("sync", path_of(fd))), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (log.append(("replace", Path(b))), replace(a, b)))
    monkeypatch.setattr(os, "rename", lambda a, b: (log.append(("rename", Path(b))), rename(a, b)))
    return log


def fail(monkeypatch, name, is_meant=lambda *args: True, error=None):
    """Lets a function of `os` fail for some of its arguments."""
    original = getattr(os, name)

    def call(*args):
        if is_meant(*args):
            raise error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args)

    monkeypatch.setattr(os, name, call)


def is_second_file(source, target):
    return Path(target).name == "two" and str(source).endswith(".tmp")


NO_LINKS = OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_files_are_written_and_replaced(tmp_path):
    write_files(tmp_path / "a" / "b", {"one": b"1", "two": b"2"})
    write_files(str(tmp_path / "a" / "b"), {"two": b"new", "three": b"3"})
    assert contents(tmp_path / "a" / "b") == {"one": b"1", "two": b"new", "three": b"3"}


def test_every_byte_is_on_disk_before_its_name_and_the_names_after(tmp_path, calls):
    write_files(tmp_path, {"one": b"1", "two": b"2"})
    assert [kind for kind, _ in calls] == ["sync", "sync", "replace", "replace", "sync"]
    assert [path.name.split(".")[1] for _, path in calls[:2]] == ["one", "two"]
    assert [path for _, path in calls[2:]] == [tmp_path / "one", tmp_path / "two", tmp_path]


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_files(tmp_path, {"one": b"1"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o640


def test_a_reader_sees_the_old_or_the_new(tmp_path, monkeypatch):
    write_files(tmp_path, {"one": b"old"})
    seen = []
    for name in ("fsync", "replace", "link"):
        fail(monkeypatch, name, lambda *args: seen.append((tmp_path / "one").read_bytes()))
    write_files(tmp_path, {"one": b"new"})
    assert set(seen) == {b"old", b"new"} and contents(tmp_path) == {"one": b"new"}


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("exist", [("one", "two"), ("one",), ("two",), ()])
def test_a_failure_half_way_changes_nothing(tmp_path, monkeypatch, exist, has_links):
    write_files(tmp_path, {"other": b"other", **dict.fromkeys(exist, b"old")})
    before = contents(tmp_path)
    if not has_links:
        fail(monkeypatch, "link", error=NO_LINKS)
    fail(monkeypatch, "replace", is_second_file)
    refused(write_files, tmp_path, {"one": b"new", "two": b"new"}, says="No space left")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, failing):
    write_files(tmp_path, {"one": b"old", "two": b"old"})
    before, count = contents(tmp_path), iter(range(1, 100))
    fail(monkeypatch, "fsync", lambda descriptor: next(count) == failing)  # of a file, of the other, of the folder
    refused(write_files, tmp_path, {"one": b"new", "two": b"new"}, says="No space left")
    assert contents(tmp_path) == before


def test_an_interruption_changes_nothing(tmp_path, monkeypatch):
    write_files(tmp_path, {"one": b"old", "two": b"old"})
    before = contents(tmp_path)
    fail(monkeypatch, "replace", is_second_file, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_files(tmp_path, {"one": b"new", "two": b"new"})
    assert contents(tmp_path) == before


def test_places_that_take_no_files(tmp_path, monkeypatch):
    write_files(tmp_path, {"one": b"old", "file": b"mine"})
    (tmp_path / "two").mkdir()
    before = contents(tmp_path)
    refused(write_files, tmp_path, {"one": b"new", "two": b"new"}, says="two is a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "a" / "b", f"{tmp_path}/a\0b", tmp_path / ("x" * 300)):
        refused(write_files, folder, {"one": b"1"})
        refused(write_folder, folder, {"one": b"1"})
    refused(write_files, tmp_path, {"x" * 300: b"1"})
    fail(monkeypatch, "mkdir", error=OSError(errno.EROFS, os.strerror(errno.EROFS)))
    refused(write_files, tmp_path / "out", {"one": b"1"}, says="Read-only")
    assert contents(tmp_path) == before


def test_a_folder_appears_whole(tmp_path, calls):
    write_folder(tmp_path / "a" / "b", {"one": b"1", "two": b"2"})
    assert contents(tmp_path / "a" / "b") == {"one": b"1", "two": b"2"} and contents(tmp_path / "a") == {"b": None}
    assert [kind for kind, _ in calls] == ["sync", "sync", "sync", "rename", "sync"]
    refused(write_folder, tmp_path / "a" / "b", {"one": b"new"})
    assert contents(tmp_path / "a" / "b") == {"one": b"1", "two": b"2"}


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_folder_does_not_appear_by_half(tmp_path, monkeypatch, failing):
    fail(monkeypatch, failing)
    refused(write_folder, tmp_path / "a", {"one": b"1"}, says="No space left")
    assert contents(tmp_path) == {}


def test_lines_are_added_at_once_and_half_a_line_stays_on_its_own(tmp_path, calls):
    (tmp_path / "log").write_bytes(b"one\nhal")
    for line in ("two", "drei ü", ""):
        append_line(str(tmp_path / "log"), line)
    assert (tmp_path / "log").read_bytes() == "one\nhal\ntwo\ndrei ü\n\n".encode()
    append_line(tmp_path / "new", "one")
    assert calls == [("sync", tmp_path / "log")] * 3 + [("sync", tmp_path / "new"), ("sync", tmp_path)]


def test_a_place_that_takes_no_line(tmp_path, monkeypatch):
    for file in (tmp_path, tmp_path / "no" / "log", f"{tmp_path}/a\0b"):
        refused(append_line, file, "one", says=str(file))
    fail(monkeypatch, "fsync")
    refused(append_line, tmp_path / "log", "one", says="No space left")
