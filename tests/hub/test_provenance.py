"""What looks like a Hub id is one only if somebody vouches for it."""

import pytest

from hf_l3rs.hub.provenance import base_models, describe_settings, known_hub_ids, last_part, trained_on


DATA = {"path": "outputs/digits", "hub_id": None, "splits": {"batches": "train"}}
ON_HUB = {"path": "local/copy", "hub_id": "org/data", "splits": {"batches": "train"}}


def test_only_stated_ids_are_known():
    meta_training = {"datasets": ["outputs/digits"], "data": [DATA, ON_HUB]}
    ids = known_hub_ids(meta_training, ["org/other", None, "not an id"])
    assert ids == {"org/data", "org/other"}
    assert trained_on(meta_training, ids) == ["org/data"]


def test_the_l3rs_that_training_started_from_counts():
    meta_training = {"data": [DATA], "started_from": {"data": [ON_HUB]}}
    assert trained_on(meta_training, known_hub_ids(meta_training)) == ["org/data"]


def test_paths_are_shown_without_the_way_to_them():
    assert [last_part(path) for path in ("/home/me/data/", "C:\\data\\mine", "digits")] == ["data", "mine", "digits"]
    shown = describe_settings({"data": [DATA], "datasets": ["/home/me/digits"], "sigma": 0.05000000001}, set())
    assert "outputs" not in str(shown) and "home" not in str(shown) and "digits" in shown["data"]
    assert shown["sigma"] == "0.05"


def test_several_models_are_shown_by_name():
    several = {"base_model": "/home/me/one", "more_base_models": ["org/two"], "revisions": [None, "a" * 40]}
    assert base_models(several) == ["one", "org/two"]
    assert describe_settings(several, set()) == {"base models": "one, org/two"}
    assert base_models({"base_model": "org/two", "more_base_models": ["home/three"]}) == ["two", "three"]


@pytest.mark.parametrize(
    "summary", [{}, {"base_model": "one"}, {"more_base_models": ["two"]}, {"base_model": "a", "more_base_models": [3]}]
)
def test_what_names_no_models_is_no_error(summary):
    assert base_models(summary) == []
    describe_settings(summary, set())
