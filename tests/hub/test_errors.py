"""What the Hub refuses, each in one sentence that names the way out."""

import os

import pytest
from huggingface_hub import constants

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import CONFIG_NAME, WEIGHTS_NAME, push
from hf_l3rs.hub.connection import hub_errors
from tests.hub.examples import REPO_ID, assert_one_sentence, load, make_network


def test_no_such_repository(hub):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained("nobody/typo")
    assert_one_sentence(error, "neither a local folder 'nobody/typo' nor a Hub repository", "check it for a typo")


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
    assert_one_sentence(error, REPO_ID, f"has no {name}", "pass the id")


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


@pytest.mark.parametrize("token", [3, b"hf_token", "", "hf_token\n", "hf token", "hf_t\u00f6ken"])
def test_token_that_none_is(hub, saved, token):
    calls = [
        lambda: L3RS.from_pretrained(REPO_ID, token=token),
        lambda: push(saved, REPO_ID, token=token),
    ]
    for call in calls:
        with pytest.raises(ArtifactError) as error:
            call()
        assert_one_sentence(error, "token must be", "hf auth login")
        assert str(token).strip() == "" or str(token).strip() not in str(error.value).replace("Hub token", "")
    assert not hub.repositories


@pytest.mark.parametrize("revision", [3, "", "a b", "a\nb", "\0"])
def test_revision_that_none_is(hub, saved, revision):
    for call in (
        lambda: L3RS.from_pretrained(REPO_ID, revision=revision),
        lambda: push(saved, REPO_ID, revision=revision),
    ):
        with pytest.raises(ArtifactError) as error:
            call()
        assert_one_sentence(error, "revision must be a branch, tag or commit", repr(revision))


@pytest.mark.parametrize("cache_dir", [3, b"cache", "/dev/null/cache"])
def test_cache_that_cannot_be_written(hub, cache_dir):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, cache_dir=cache_dir)
    assert_one_sentence(error, REPO_ID, "choose another cache_dir")


def test_a_client_that_huggingface_hub_closed_counts_as_no_answer():
    with pytest.raises(ArtifactError) as error, hub_errors(REPO_ID, None, CONFIG_NAME):
        raise RuntimeError("Cannot send a request, as the client has been closed.")
    assert_one_sentence(error, constants.ENDPOINT, "does not answer", "check the connection")


def test_unreachable_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its attempts
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, cache_dir=tmp_path)
    assert_one_sentence(error, constants.ENDPOINT, "does not answer", "not in the cache")
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, constants.ENDPOINT, "does not answer", "a push needs it")
    assert "cache" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "cause"), [(401, "hf auth login"), (403, "right"), (429, "too often"), (503, "try again later")]
)
def test_what_the_hub_refuses_has_its_cause(hub, status, cause):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    hub.status = status
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, cause)
