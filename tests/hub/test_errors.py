"""What the Hub refuses, each in one sentence that names the way out."""

import os

import pytest
from huggingface_hub import constants

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import CONFIG_NAME, WEIGHTS_NAME
from tests.hub.examples import REPO_ID, assert_one_sentence, load, make_network


def test_local_typo():
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained("./outputs/l3rs/typo")
    assert_one_sentence(error, "neither a local folder nor a Hub id", "check it for a typo")


def test_no_such_repository(hub):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained("outputs/typo")
    assert_one_sentence(error, "neither a local folder 'outputs/typo' nor a Hub repository", "check it for a typo")


def test_private_repository_without_token(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID, private=True)
    token = os.environ["HF_TOKEN"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, "hf auth login")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, token=True)
    assert_one_sentence(error, "hf auth login")
    assert load(REPO_ID, token=token)[0].fingerprint() == make_network().fingerprint()


def test_gated_repository(hub):
    hub.create(REPO_ID, is_gated=True)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, "is gated", f"{hub.url}/{REPO_ID}", "hf auth login")


def test_no_such_revision(hub):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, revision="v9")
    assert_one_sentence(error, REPO_ID, "no revision 'v9'", "branch, tag or commit")


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_repository_without_a_file(hub, saved, name):
    files = {file.name: file.read_bytes() for file in saved.iterdir() if file.name != name}
    hub.create(REPO_ID).commit("main", files, "Something else")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, f"has no {name}", "pass the id of a learned optimizer")


def test_repository_of_a_transformers_model(hub):
    hub.create(REPO_ID).commit("main", {CONFIG_NAME: b'{"model_type": "vit"}', WEIGHTS_NAME: b""}, "A model")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, "a transformers model, not an L3RS")


def test_offline_and_not_cached(hub, monkeypatch):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, local_files_only=True)
    assert_one_sentence(error, REPO_ID, "not in the cache", "load it once while online")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, "not in the cache", "load it once while online")
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, "HF_HUB_OFFLINE", "unset it")


def test_unreachable_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its attempts
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, cache_dir=tmp_path)
    assert_one_sentence(error, constants.ENDPOINT, "cannot be reached", "check the connection")
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, constants.ENDPOINT, "cannot be reached", "check the connection")
