"""The recipe as its user runs it, stopped with Ctrl-C and started again."""

import os
import signal
import subprocess
import sys
import time

from tests.evaluation.evaluate_tiny import make_inputs


def num_lines(output):
    return sum(part.read_bytes().count(b"\n") for part in output.glob("*.parts/*.csv"))


def heed_ctrl_c():
    """Undoes what a shell does to a job in the background, and all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(tmp_path):
    inputs = make_inputs(tmp_path / "inputs")
    output = tmp_path / "output"
    command = [
        *(sys.executable, "recipes/meta_evaluate.py", "--base_model", str(inputs / "base")),
        *("--datasets", str(inputs / "images"), "--num_classes", "3", "--batch_size", "4", "--evaluation_size", "12"),
        *("--l3rs", str(inputs / "l3rs"), "--horizons", "5", "--num_tasks", "2", "--num_search_tasks", "8"),
        *("--data_limit_max_steps", "0", "--output_dir", str(output)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    deadline = time.monotonic() + 90
    while num_lines(output) < 2 and process.poll() is None and time.monotonic() < deadline:  # the first is the header
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert "the same command goes on from there" in errors
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "of 176 runs are in" in done.stderr and "| 5 | L3RS | none |" in done.stdout
    changed = subprocess.run(
        [*command, "--batch_size", "5"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert changed.returncode == 1 and "Traceback" not in changed.stderr
    assert changed.stderr.splitlines()[-1].startswith("error: ") and "batch_size was 4, now 5" in changed.stderr
