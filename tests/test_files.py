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


def assert_one_sentence(error, *words):
    message = str(error.value)
    assert "\n" not in message and message.endswith("choose another.")
    assert isinstance(error.value, L3RSError) and isinstance(error.value, OSError)
    for word in words:
        assert str(word) in message, message


@pytest.fixture
def calls(monkeypatch):
    """What was synced and renamed, in its order: paths relative to the working folder."""
    log = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def path_of(descriptor):
        return os.readlink(f"/proc/self/fd/{descriptor}")

    monkeypatch.setattr(os, "fsync", lambda fd: (log.append(("sync", Path(path_of(fd)))), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (log.append(("replace", Path(b))), replace(a, b)))
    monkeypatch.setattr(os, "rename", lambda a, b: (log.append(("rename", Path(b))), rename(a, b)))
    return log


def refuse(monkeypatch, name, is_meant, code=errno.ENOSPC):
    """Lets a function of `os` fail for some of its arguments."""
    original = getattr(os, name)

    def fail(*args):
        if is_meant(*args):
            raise OSError(code, os.strerror(code))
        return original(*args)

    monkeypatch.setattr(os, name, fail)


# write_files


def test_files_are_written_and_replaced(tmp_path):
    write_files(tmp_path / "a" / "b", {"one": b"1", "two": b"2"})
    write_files(str(tmp_path / "a" / "b"), {"two": b"new", "three": b"3"})
    assert contents(tmp_path / "a" / "b") == {"one": b"1", "two": b"new", "three": b"3"}


def test_every_byte_is_on_disk_before_its_name_and_the_names_after(tmp_path, calls):
    write_files(tmp_path, {"one": b"1", "two": b"2"})
    kinds = [kind for kind, _ in calls]
    assert kinds == ["sync", "sync", "replace", "replace", "sync"]
    assert [path.name.split(".")[1] for _, path in calls[:2]] == ["one", "two"]
    assert [path.name for _, path in calls[2:4]] == ["one", "two"]
    assert calls[4][1] == tmp_path


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
        original = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda *args, original=original: (seen.append((tmp_path / "one").read_bytes()), original(*args)),
        )
    write_files(tmp_path, {"one": b"new"})
    assert set(seen) == {b"old", b"new"}


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("exist", [("one", "two"), ("one",), ("two",), ()])
def test_a_failure_half_way_changes_nothing(tmp_path, monkeypatch, exist, has_links):
    write_files(tmp_path, {"other": b"other", **dict.fromkeys(exist, b"old")})
    before = contents(tmp_path)
    if not has_links:
        refuse(monkeypatch, "link", lambda source, target: True, errno.EPERM)
    refuse(monkeypatch, "replace", lambda source, target: Path(target).name == "two" and str(source).endswith(".tmp"))
    with pytest.raises(StorageError) as error:
        write_files(tmp_path, {"one": b"new", "two": b"new"})
    assert_one_sentence(error, tmp_path, "No space left")
    assert contents(tmp_path) == before


def test_without_hard_links(tmp_path, monkeypatch):
    write_files(tmp_path, {"one": b"old"})
    refuse(monkeypatch, "link", lambda source, target: True, errno.EPERM)
    write_files(tmp_path, {"one": b"new"})
    assert contents(tmp_path) == {"one": b"new"}


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, failing):
    write_files(tmp_path, {"one": b"old", "two": b"old"})
    before, count = contents(tmp_path), iter(range(1, 100))
    refuse(monkeypatch, "fsync", lambda descriptor: next(count) == failing)  # of a file, of the other, of the folder
    with pytest.raises(StorageError) as error:
        write_files(tmp_path, {"one": b"new", "two": b"new"})
    assert_one_sentence(error, tmp_path, "No space left")
    assert contents(tmp_path) == before


def test_an_interruption_changes_nothing(tmp_path, monkeypatch):
    write_files(tmp_path, {"one": b"old", "two": b"old"})
    before, replace = contents(tmp_path), os.replace

    def interrupt(source, target):
        if Path(target).name == "two" and str(source).endswith(".tmp"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_files(tmp_path, {"one": b"new", "two": b"new"})
    assert contents(tmp_path) == before


def test_a_folder_in_place_of_the_second_file(tmp_path):
    write_files(tmp_path, {"one": b"old"})
    (tmp_path / "two").mkdir()
    with pytest.raises(StorageError) as error:
        write_files(tmp_path, {"one": b"new", "two": b"new"})
    assert_one_sentence(error, tmp_path, "two is a folder")
    assert contents(tmp_path) == {"one": b"old", "two": None}


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_place_of_the_folder(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError) as error:
        write_files(tmp_path / "file" / below, {"one": b"1"})
    assert_one_sentence(error, tmp_path / "file" / below)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, code):
    refuse(monkeypatch, "mkdir", lambda *args: True, code)
    with pytest.raises(StorageError) as error:
        write_files(tmp_path / "out", {"one": b"1"})
    assert_one_sentence(error, tmp_path / "out", os.strerror(code))


def test_paths_that_no_file_system_has(tmp_path):
    for folder, name in ((f"{tmp_path}/a\0b", "one"), (tmp_path, "x" * 300), (tmp_path / ("x" * 300), "one")):
        with pytest.raises(StorageError) as error:
            write_files(folder, {name: b"1"})
        assert_one_sentence(error)
    assert contents(tmp_path) == {}


# write_folder


def test_a_folder_appears_whole(tmp_path, calls):
    write_folder(tmp_path / "a" / "b", {"one": b"1", "two": b"2"})
    assert contents(tmp_path / "a" / "b") == {"one": b"1", "two": b"2"}
    assert contents(tmp_path / "a") == {"b": None}
    assert [kind for kind, _ in calls] == ["sync", "sync", "sync", "rename", "sync"]
    assert calls[3][1] == tmp_path / "a" / "b" and calls[4][1] == tmp_path / "a"


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_folder_does_not_appear_by_half(tmp_path, monkeypatch, failing):
    refuse(monkeypatch, failing, lambda *args: True)
    with pytest.raises(StorageError) as error:
        write_folder(tmp_path / "a", {"one": b"1"})
    assert_one_sentence(error, tmp_path / "a", "No space left")
    assert contents(tmp_path) == {}


def test_an_occupied_place_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    write_folder(tmp_path / "folder", {"one": b"old"})
    for name in ("file", "folder"):
        with pytest.raises(StorageError) as error:
            write_folder(tmp_path / name, {"one": b"new"})
        assert_one_sentence(error, tmp_path / name)
    assert contents(tmp_path) == {"file": b"mine", "folder": None}
    assert contents(tmp_path / "folder") == {"one": b"old"}


# append_line


def test_lines_are_added_at_the_end(tmp_path):
    for line in ("one", "zwei ü", ""):
        append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_bytes() == "one\nzwei ü\n\n".encode()


def test_a_line_is_on_disk_at_once(tmp_path, calls):
    append_line(tmp_path / "log", "one")
    append_line(str(tmp_path / "log"), "two")
    assert calls == [("sync", tmp_path / "log"), ("sync", tmp_path), ("sync", tmp_path / "log")]


def test_half_a_line_stays_on_its_own(tmp_path):
    (tmp_path / "log").write_bytes(b"one\nhal")
    append_line(tmp_path / "log", "two")
    append_line(tmp_path / "log", "three")
    assert (tmp_path / "log").read_bytes() == b"one\nhal\ntwo\nthree\n"


def test_a_place_that_takes_no_line(tmp_path, monkeypatch):
    for file in (tmp_path, tmp_path / "no" / "log", f"{tmp_path}/a\0b"):
        with pytest.raises(StorageError) as error:
            append_line(file, "one")
        assert_one_sentence(error, file)
    refuse(monkeypatch, "fsync", lambda descriptor: True)
    with pytest.raises(StorageError) as error:
        append_line(tmp_path / "log", "one")
    assert_one_sentence(error, "No space left")
