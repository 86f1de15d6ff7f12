"""Whether the Hub answers is known at once, and a path is not taken for a name on it."""

import pytest
from huggingface_hub import constants

from hf_l3rs.hub.connection import hub_answers, is_repo_id, out_of_reach


@pytest.mark.parametrize("name", ["cifar10", "owner/name", "owner/name-1.5_x"])
def test_names_of_repositories(name):
    assert is_repo_id(name)


@pytest.mark.parametrize(
    "name", ["", " ", "./x", "../x", "/x", "~/x", "a/b/c", "a/", "s3://a/b", "a b", "C:\\x", "x\n"]
)
def test_paths_are_none(name):
    assert not is_repo_id(name)


def test_whether_the_hub_answers(hub, monkeypatch):
    """What it answers does not matter, and it has the time that the user's setting gives it."""
    assert hub_answers("nobody/nothing") and hub_answers("nobody/nothing", "dataset")
    hub.delay = 0.5
    assert hub_answers("nobody/nothing")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    assert not hub_answers("nobody/nothing")


def test_a_hub_that_is_off_or_out_of_reach_does_not_answer(monkeypatch):
    assert not hub_answers("a/b") and "downloads are off" in out_of_reach("a/b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not hub_answers("a/b") and f"{constants.ENDPOINT} does not answer" in out_of_reach("a/b")
