"""Whatever a user gets wrong, at whichever door, is refused in one sentence: what, got, allowed, fix."""

import logging
import subprocess
import sys

import pytest

from tests.bad_inputs import artefacts, classes, commands, data, models, optimizers, runs, settings
from tests.bad_inputs.doors import ROOT, Place, check_sentence, furnish


ROWS = [
    row for table in (artefacts, classes, commands, data, models, optimizers, runs, settings) for row in table.ROWS
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    furnish(folder)
    return folder


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input(row, shared, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)  # the recipes' own would outlive the test
    check_sentence(row.door(Place(shared, tmp_path), capsys, monkeypatch), row.says)


def test_each_is_another():
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["-m", "hf_l3rs.cli", "info", "./absent"], "hf-l3rs: './absent' is neither a local folder nor a Hub id"),
        (["-m", "recipes.meta_train", "<own>/bad.yaml"], "error: TaskArguments.datasets must be a list"),
    ],
)
def test_the_shell_sees_one_line_and_a_failure(command, says, tmp_path):
    (tmp_path / "bad.yaml").write_text("base_model: model\ndatasets: data\n")
    argv = [sys.executable, *(each.replace("<own>", str(tmp_path)) for each in command)]
    result = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(says) and result.stderr.count("\n") == 1
