"""What other libraries say is put into one sentence of ours."""

import pytest

from hf_l3rs.errors import reason


def chained(*messages):
    error = None
    for message in messages:
        outer = RuntimeError(message)
        outer.__cause__, error = error, outer
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("No such thing. See the manual at https://x.y."), "No such thing"),
        (ValueError("two\n  lines"), "two lines"),
        (ValueError("what now?"), "what now?"),
        (KeyError(), "KeyError"),
        (ValueError("version 1.2 is old... and slow"), "version 1.2 is old... and slow"),
        (ValueError("cannot identify <_io.BytesIO object at 0x7fb1155ce390>"), "cannot identify BytesIO"),
        (ValueError("no <class 'transformers.models.bert.BertConfig'> here"), "no BertConfig here"),
        (chained("the bottom!", "the middle", "the top"), "the bottom"),
    ],
)
def test_reason(error, text):
    assert reason(error) == text


def test_a_reason_is_not_endless():
    assert len(reason(ValueError("word " * 1000))) <= 200
    assert len(reason(ValueError("x" * 1000))) <= 200
