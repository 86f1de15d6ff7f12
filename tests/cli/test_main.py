"""The command `hf-l3rs` in a shell: answers, one line for what went wrong, and no traceback."""

import io
import os
import subprocess
import sys

import pytest

from hf_l3rs.cli.main import INTERRUPTED, READER_LEFT, columns, main, run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import load_network, save_network
from tests.hub.examples import change_config


@pytest.fixture
def own(inputs, tmp_path):
    """An L3RS in a folder of the test's own."""
    save_network(load_network(inputs / "l3rs"), tmp_path / "own")
    return tmp_path / "own"


def test_a_table_has_one_row_a_line_and_obeys_nobody():
    assert columns([("a", None), ("long", ["x"])]) == 'a     -\nlong  ["x"]'
    assert columns([("a", "\x1b[31mred\n")]).isprintable()


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [(ConfigError("Too few."), 1, "error: Too few.\n"), (KeyboardInterrupt(), INTERRUPTED, "")],
)
def test_what_a_user_causes_is_no_traceback_of_a_recipe(error, code, sentence, capsys):
    def failing():
        raise error

    with pytest.raises(SystemExit) as exit:
        run_script(failing)
    assert exit.value.code == code and capsys.readouterr().err == sentence


def test_a_mistake_of_ours_is_one():
    run_script(lambda: "anything")
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("$CLI info --json | true", (0, READER_LEFT)),
        ("$CLI evaluate --help | true", (0, READER_LEFT)),
        ("$CLI info >&-", (0,)),
        ("$CLI info > /dev/full", (1,)),
        (
            "python -c 'from hf_l3rs.cli.main import run_script; run_script(lambda: print(1))' | true",
            (0, READER_LEFT),
        ),
        ("$CLI init --data a < /dev/null", (1,)),
    ],
)
def test_an_answer_that_nobody_takes_is_no_traceback(line, codes):
    environment = {**os.environ, "CLI": f"{sys.executable} -m hf_l3rs.cli"}
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment["PATH"]])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, text=True)
    assert done.returncode in codes and done.stdout == ""
    assert done.stderr.count("\n") == (done.returncode == 1) and "Traceback" not in done.stderr


def test_a_terminal_that_knows_few_characters(own, monkeypatch):
    change_config(own, base_model="µ/学习")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["info", str(own)]) == 0
    stream.flush()
    assert b"\\u5b66\\u4e60" in stream.buffer.getvalue()


def test_a_folder_that_may_not_be_read(run, own, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(own))

    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    status, out, err = run("info", own)
    assert (status, out, err.count("\n")) == (1, "", 1) and "Permission denied" in err


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["push", "folder"]])
def test_usage_errors(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and "usage: hf-l3rs" in capsys.readouterr().err
