"""Whether the Hub answers is known at once, and a path is not taken for a name on it."""

import time

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


def test_a_hub_that_runs_answers_also_where_it_has_no_such_page(hub):
    assert hub_answers()


def test_a_hub_that_is_off_or_out_of_reach_does_not(monkeypatch):
    assert not hub_answers() and "downloads are off" in out_of_reach("x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = time.perf_counter()
    assert not hub_answers() and f"{constants.ENDPOINT} does not answer" in out_of_reach("x")
    assert time.perf_counter() - start < 5
