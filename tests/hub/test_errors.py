"""What the Hub refuses, each in one sentence that names the way out."""

import os

import pytest
from huggingface_hub import constants

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import CONFIG_NAME, WEIGHTS_NAME, push
from hf_l3rs.hub.connection import hub_errors
from tests.hub.examples import REPO_ID, assert_one_sentence, contents, load, make_network


def refuse(*words, **options):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, **options)
    assert_one_sentence(error, *words)


def refuse_push(*words):
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, *words)
    assert "cache" not in str(error.value)


def test_no_such_repository_or_revision(hub):
    refuse(f"neither a local folder '{REPO_ID}' nor a Hub repository", "check it for a typo")
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    refuse(REPO_ID, "no revision 'v9'", "branch, tag or commit", revision="v9")


def test_private_repository_without_token(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID, private=True)
    token = os.environ["HF_TOKEN"]
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its attempts
    refuse(REPO_ID, "hf auth login")
    refuse("hf auth login", token=True)
    assert load(REPO_ID, token=token)[0] == make_network().fingerprint()


def test_gated_repository(hub):
    hub.create(REPO_ID, is_gated=True)
    refuse("is gated", f"{hub.url}/{REPO_ID}", "hf auth login")


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_repository_without_a_file(hub, saved, name):
    (saved / name).unlink()
    hub.create(REPO_ID).commit("main", contents(saved), "Something else")
    refuse(REPO_ID, f"has no {name}", "pass the id")


@pytest.mark.parametrize("token", [3, b"hf_token", "", "hf_token\n", "hf token", "hf_t\u00f6ken"])
def test_token_that_cannot_be_sent_is_not_shown(hub, saved, token):
    for call in (L3RS.from_pretrained, lambda *args, **options: push(saved, *args, **options)):
        with pytest.raises(ArtifactError) as error:
            call(REPO_ID, token=token)
        assert_one_sentence(error, "token must be", "hf auth login")
        assert not token or str(token).strip() not in str(error.value)
    assert not hub.repositories


@pytest.mark.parametrize("revision", [3, "", "a b", "a\nb", "\0"])
def test_revision_that_cannot_be_one(hub, saved, revision):
    for call in (L3RS.from_pretrained, lambda *args, **options: push(saved, *args, **options)):
        with pytest.raises(ArtifactError) as error:
            call(REPO_ID, revision=revision)
        assert_one_sentence(error, "revision must be", repr(revision))


@pytest.mark.parametrize("cache_dir", [3, b"cache", "/dev/null/cache"])
def test_cache_that_cannot_be_written(hub, cache_dir):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    refuse(REPO_ID, "choose another cache_dir", cache_dir=cache_dir)


def test_unreachable_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    refuse(REPO_ID, "not in the cache", "downloads are off", local_files_only=True)
    refuse(constants.ENDPOINT, "does not answer", "not in the cache", cache_dir=tmp_path)
    refuse_push(constants.ENDPOINT, "does not answer", "a push needs it")
    with pytest.raises(ArtifactError, match="does not answer"), hub_errors(REPO_ID, None, CONFIG_NAME):
        raise RuntimeError("Cannot send a request, as the client has been closed.")


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_what_the_hub_refuses_has_its_status_and_its_words(hub, status):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    hub.status = status
    refuse_push(str(status), "Refused", "hf auth login", "try again later")
