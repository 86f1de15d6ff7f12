import pytest

from hf_l3rs.cli.shell import INTERRUPTED, run_script
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
