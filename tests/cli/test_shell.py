import os
import subprocess
import sys

import pytest

from hf_l3rs.cli.shell import INTERRUPTED, READER_LEFT, run_script
from hf_l3rs.errors import ConfigError


def failing(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("Too few."), "error: Too few."), (KeyboardInterrupt(), INTERRUPTED)]
)
def test_what_a_user_causes_is_no_traceback(error, code):
    with pytest.raises(SystemExit) as exit:
        run_script(failing(error))
    assert exit.value.code == code


def test_a_mistake_of_ours_is_one():
    run_script(lambda: "anything")
    with pytest.raises(ZeroDivisionError):
        run_script(failing(ZeroDivisionError()))


def shell(line):
    """Runs a line of bash with `$CLI` for the command; returns its status, output and errors."""
    environment = {**os.environ, "CLI": f"{sys.executable} -m hf_l3rs.cli.main"}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("$CLI info {l3rs} --json | true", (0, READER_LEFT)),
        ("$CLI evaluate --help | true", (0, READER_LEFT)),
        ("$CLI info {l3rs} >&-", (0,)),
        ("$CLI info {l3rs} > /dev/full", (1,)),
    ],
)
def test_an_answer_that_nobody_takes_is_no_traceback(inputs, line, codes):
    code, out, err = shell(line.format(l3rs=inputs / "l3rs"))
    assert code in codes and out == "" and err.count("\n") == (code == 1) and "Traceback" not in err
