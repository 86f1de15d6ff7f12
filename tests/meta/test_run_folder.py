"""The folder of a run: one run at a time, whatever happened to the one before."""

import json
import logging
import math
import os
import signal
import subprocess
import sys

import filelock
import pytest

from hf_l3rs.errors import CheckpointError, StorageError
from hf_l3rs.meta.run_folder import METRICS_NAME, append_metrics, sole_use, truncate_metrics


HOLDER = """
import sys, time
from pathlib import Path
from hf_l3rs.meta.run_folder import sole_use
with sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_kept_out_until_it_dies(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="Another run is using") as error, sole_use(tmp_path):
            pass
        assert "\n" not in str(error.value)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with sole_use(tmp_path):
        pass


def test_an_error_inside_releases_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_use(tmp_path):
        raise ZeroDivisionError
    with sole_use(tmp_path):
        pass


def test_half_written_checkpoints_of_killed_processes_are_swept_out(tmp_path):
    (tmp_path / ".checkpoint-4.abc.tmp").mkdir()
    with sole_use(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(self, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    with caplog.at_level(logging.WARNING), sole_use(tmp_path):
        assert "cannot be locked" in caplog.text


def test_a_place_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError, match="cannot be written .*choose another output_dir"), sole_use(tmp_path):
        pass


def test_metrics_are_strict_json(tmp_path):
    append_metrics(tmp_path, {"generation": 1, "meta_loss": math.nan, "validation_loss": math.inf, "sigma": 0.5})
    line = (tmp_path / METRICS_NAME).read_text()
    assert json.loads(line, parse_constant=lambda name: 1 / 0) == {
        "generation": 1,
        "meta_loss": None,
        "validation_loss": None,
        "sigma": 0.5,
    }


@pytest.mark.parametrize("end", [b"", b'{"generation": 3', b'{"generation": 3}', b"\0\0\0", b"\xff"])
def test_lines_of_later_generations_and_half_a_last_line_go(tmp_path, end):
    (tmp_path / METRICS_NAME).write_bytes(b'{"generation": 1}\n{"generation": 2}\n{"generation": 3}\n' + end)
    truncate_metrics(tmp_path, 2)
    assert (tmp_path / METRICS_NAME).read_bytes() == b'{"generation": 1}\n{"generation": 2}\n'


def test_a_whole_last_line_stays_without_its_line_break(tmp_path):
    (tmp_path / METRICS_NAME).write_bytes(b'{"generation": 1}\n{"generation": 2}')
    truncate_metrics(tmp_path, 2)
    assert (tmp_path / METRICS_NAME).read_bytes() == b'{"generation": 1}\n{"generation": 2}\n'


@pytest.mark.parametrize(
    "line", [b"[1]", b"7", b"{}", b'{"generation": "two"}', b"null", b"text", b"\xff", b"[" * 100_000]
)
def test_a_file_that_is_no_log_of_metrics_is_left_alone(tmp_path, line):
    content = b'{"generation": 1}\n' + line + b'\n{"generation": 2}\n'
    (tmp_path / METRICS_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match="metrics on every line.*move it away") as error:
        truncate_metrics(tmp_path, 1)
    assert "\n" not in str(error.value)
    assert (tmp_path / METRICS_NAME).read_bytes() == content


def test_a_folder_in_place_of_the_log_is_named(tmp_path):
    (tmp_path / METRICS_NAME).mkdir()
    with pytest.raises(CheckpointError, match="metrics on every line"):
        truncate_metrics(tmp_path, 1)
