"""What the commands' tests share: a tiny model, images in one folder a class, and an L3RS for them."""

import pytest

from hf_l3rs.cli.main import main
from tests.evaluation.evaluate_tiny import make_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder with `base`, `images` and `l3rs`, which no test changes."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def run(capsys):
    """Runs the command line; returns its status, what it wrote, and its errors."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
