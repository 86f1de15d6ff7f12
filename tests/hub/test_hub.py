"""The artefact on the Hub: a push is one commit that loses nothing, and what was pushed is loaded."""

import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi, constants

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import CONFIG_NAME, PICTURE_NAME, README, RESULTS_NAME, WEIGHTS_NAME, push
from hf_l3rs.hub.results import write_results
from tests.hub.examples import REPO_ID, assert_one_sentence, load, make_model, make_network, make_results, train


def push_network(seed=0, **options):
    return L3RS(network=make_network(seed)).push_to_hub(REPO_ID, **options)


@pytest.fixture
def repository(hub):
    """One that an L3RS was pushed to."""
    push_network()
    return hub.repositories[REPO_ID]


def test_push_is_one_commit_and_from_pretrained_gives_it_back(hub):
    url = push_network(commit_message="First")
    repository = hub.repositories[REPO_ID]
    assert repository.messages == ["First"] and not repository.is_private
    assert set(repository.files) == {README, CONFIG_NAME, WEIGHTS_NAME}
    optimizer, expected = L3RS.from_pretrained(REPO_ID), L3RS(network=make_network())
    assert optimizer.commit_hash == repository.branches["main"] and url.endswith(optimizer.commit_hash)
    for actual, value in zip(train(optimizer, make_model()), train(expected, make_model()), strict=True):
        assert torch.equal(actual, value)


def test_revisions(repository):
    first, second = make_network().fingerprint(), make_network(1).fingerprint()
    first_commit = repository.branches["main"]
    push_network(1)
    push_network(revision="stable")
    assert load(REPO_ID) == (second, repository.branches["main"])
    assert load(REPO_ID, revision=first_commit) == (first, first_commit)
    assert load(REPO_ID, revision="stable") == (first, repository.branches["stable"])


def test_config_and_weights_are_of_one_commit(repository, monkeypatch):
    download = sys.modules["hf_l3rs.hub.artifact"].hf_hub_download

    def push_in_between(repo_id, filename, **options):
        file = download(repo_id, filename, **options)
        if filename == CONFIG_NAME:
            repository.commit("main", {WEIGHTS_NAME: b"of another commit"}, "In between")
        return file

    monkeypatch.setattr("hf_l3rs.hub.artifact.hf_hub_download", push_in_between)
    assert load(REPO_ID)[0] == make_network().fingerprint()


def test_second_push_keeps_what_a_person_wrote(repository):
    card = repository.files[README].decode()
    card = card.replace("tags:", "license: mit\nthumbnail: me.png\ntags:") + "\n## My notes\n\nHandle with care.\n"
    repository.commit("main", {README: card.encode(), "figure.png": b"png"}, "By hand")
    push_network(1)
    for kept in ("license: mit", "thumbnail: me.png", "## My notes\n\nHandle with care."):
        assert kept in repository.files[README].decode()
    assert repository.files["figure.png"] == b"png" and len(repository.messages) == 3


def test_push_of_a_folder_takes_its_text_and_the_metadata_of_both(repository, saved):
    L3RS(network=make_network()).save_pretrained(saved)
    card = repository.files[README].decode().replace("tags:\n", "tags:\n- theirs\n")
    repository.commit("main", {README: card.encode()}, "By hand")
    (saved / README).write_text((saved / README).read_text() + "\n## From the folder\n")
    (saved / PICTURE_NAME).write_bytes(b"\x89PNG")
    push(saved, REPO_ID, license="mit")
    card = repository.files[README].decode()
    for words in ("- theirs", "## From the folder", f'"{REPO_ID}")', f"]({PICTURE_NAME})", "license: mit"):
        assert words in card
    assert repository.files[PICTURE_NAME] == b"\x89PNG"


def test_results_stay_with_the_meta_weights_that_they_are_of(hub, saved):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    push(saved, REPO_ID)
    repository = hub.repositories[REPO_ID]
    for seed in (0, 1):
        push_network(seed)
        assert (RESULTS_NAME in repository.files) == (b"0.250 |" in repository.files[README]) == (seed == 0)
    assert len(repository.messages) == 3


def commit_in_between(monkeypatch, repository, edits):
    """Lets somebody else commit between reading and committing, once for every edit."""
    create_commit = HfApi.create_commit

    def commit_after_somebody(self, *args, **options):
        if edits:
            repository.commit("main", edits.pop(0), "In between")
        return create_commit(self, *args, **options)

    monkeypatch.setattr(HfApi, "create_commit", commit_after_somebody)


def test_push_keeps_what_somebody_writes_meanwhile(repository, monkeypatch):
    card = repository.files[README]
    edits = [{README: card + b"\n## Theirs\n"}, {README: card + b"\n## Theirs, corrected\n"}]
    commit_in_between(monkeypatch, repository, edits)
    push_network(1)
    assert b"## Theirs, corrected" in repository.files[README]
    assert load(REPO_ID)[0] == make_network(1).fingerprint()
    assert repository.messages == ["Upload L3RS", "In between", "In between", "Upload L3RS"]


def test_push_that_never_gets_its_turn(repository, monkeypatch):
    commit_in_between(monkeypatch, repository, [{"log": str(index).encode()} for index in range(100)])
    with pytest.raises(ArtifactError) as error:
        push_network(1)
    assert_one_sentence(error, REPO_ID, "changed on the Hub", "push again")
    assert "Upload L3RS" not in repository.messages[1:]


def test_results_on_the_hub_that_are_damaged(repository):
    repository.commit("main", {RESULTS_NAME: b"[]"}, "By hand")
    with pytest.raises(ArtifactError) as error:
        push_network()
    assert_one_sentence(error, RESULTS_NAME, f"{REPO_ID!r} on the Hub")


def test_cache_serves_while_offline(hub, repository, monkeypatch):
    expected = load(REPO_ID)
    hub.repositories.clear()
    assert load(REPO_ID, local_files_only=True) == expected
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(REPO_ID) == load(REPO_ID, revision=expected[1]) == expected


def test_import_is_light():
    code = (
        "import sys, hf_l3rs.cli.main; hf_l3rs.cli.main.make_parser(); assert 'torch' not in sys.modules;"
        "import hf_l3rs.hub.artifact; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
