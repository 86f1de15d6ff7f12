"""The artefact on the Hub: a push is one commit that loses nothing, and what was pushed is loaded and pulled."""

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


def test_push_is_one_commit_and_from_pretrained_gives_it_back(hub):
    network = make_network()
    url = L3RS(network=network).push_to_hub(REPO_ID, commit_message="First")
    repository = hub.repositories[REPO_ID]
    assert repository.messages == ["First"]
    assert set(repository.trees[repository.branches["main"]]) == {README, CONFIG_NAME, WEIGHTS_NAME}
    assert not repository.is_private
    optimizer = L3RS.from_pretrained(REPO_ID)
    assert optimizer.network.fingerprint() == network.fingerprint()
    assert optimizer.commit_hash == repository.branches["main"]
    assert url.endswith(optimizer.commit_hash)
    for actual, value in zip(train(optimizer, make_model()), train(L3RS(network=network), make_model()), strict=True):
        assert torch.equal(actual, value)


def test_revisions(hub):
    first, second = make_network(), make_network(seed=1)
    L3RS(network=first).push_to_hub(REPO_ID)
    first_commit = hub.repositories[REPO_ID].branches["main"]
    L3RS(network=second).push_to_hub(REPO_ID)
    L3RS(network=first).push_to_hub(REPO_ID, revision="stable")
    assert load(REPO_ID)[0].fingerprint() == second.fingerprint()
    network, commit_hash = load(REPO_ID, revision=first_commit)
    assert (network.fingerprint(), commit_hash) == (first.fingerprint(), first_commit)
    assert load(REPO_ID, revision="stable")[0].fingerprint() == first.fingerprint()
    assert L3RS.from_pretrained(REPO_ID, revision="stable").commit_hash == hub.repositories[REPO_ID].branches["stable"]


def test_config_and_weights_are_of_one_commit(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    repository = hub.repositories[REPO_ID]
    download = sys.modules["hf_l3rs.hub.artifact"].hf_hub_download

    def push_in_between(repo_id, filename, **options):
        file = download(repo_id, filename, **options)
        if filename == CONFIG_NAME:
            repository.commit("main", {WEIGHTS_NAME: b"of another commit"}, "In between")
        return file

    monkeypatch.setattr("hf_l3rs.hub.artifact.hf_hub_download", push_in_between)
    assert load(REPO_ID)[0].fingerprint() == make_network().fingerprint()


def test_second_push_keeps_what_a_person_wrote(hub):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    repository = hub.repositories[REPO_ID]
    card = repository.trees[repository.branches["main"]][README].decode()
    card = card.replace("tags:", "license: mit\nthumbnail: me.png\ntags:") + "\n## My notes\n\nHandle with care.\n"
    repository.commit("main", {README: card.encode(), "figure.png": b"png"}, "By hand")
    L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    for kept in ("license: mit", "thumbnail: me.png", "## My notes\n\nHandle with care."):
        assert kept in tree[README].decode()
    assert tree["figure.png"] == b"png"
    assert len(repository.messages) == 3


def test_push_of_a_folder_takes_its_text_and_the_metadata_of_both(hub, saved):
    L3RS(network=make_network()).save_pretrained(saved)
    push(saved, REPO_ID)
    repository = hub.repositories[REPO_ID]
    card = repository.trees[repository.branches["main"]][README].decode()
    repository.commit("main", {README: card.replace("tags:\n", "tags:\n- theirs\n").encode()}, "By hand")
    (saved / README).write_text((saved / README).read_text() + "\n## From the folder\n")
    push(saved, REPO_ID)
    card = repository.trees[repository.branches["main"]][README].decode()
    assert "- theirs" in card
    assert "## From the folder" in card
    assert f'from_pretrained("{REPO_ID}")' in card


def test_results_stay_with_the_meta_weights_that_they_are_of(hub, saved):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    push(saved, REPO_ID)
    repository = hub.repositories[REPO_ID]
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    assert RESULTS_NAME in tree
    assert "0.250 |" in tree[README].decode()
    L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    assert RESULTS_NAME not in tree
    assert "0.250 |" not in tree[README].decode()
    assert len(repository.messages) == 3


def test_picture_and_licence_go_along(hub, saved):
    (saved / PICTURE_NAME).write_bytes(b"\x89PNG")
    push(saved, REPO_ID, license="mit")
    repository = hub.repositories[REPO_ID]
    tree = repository.trees[repository.branches["main"]]
    assert tree[PICTURE_NAME] == b"\x89PNG"
    assert f"]({PICTURE_NAME})" in tree[README].decode() and "license: mit" in tree[README].decode()


def test_push_refuses_results_of_other_meta_weights(hub, saved):
    write_results(make_results(make_network(seed=1)), saved / RESULTS_NAME)
    with pytest.raises(ArtifactError) as error:
        push(saved, REPO_ID)
    assert_one_sentence(error, "measured with meta-weights", "leave the file out")
    assert not hub.repositories


def push_in_between(monkeypatch, repository, edits):
    """Lets somebody else commit between reading and committing, once for every edit."""
    create_commit = HfApi.create_commit

    def commit_after_somebody(self, *args, **options):
        if edits:
            repository.commit("main", edits.pop(0), "In between")
        return create_commit(self, *args, **options)

    monkeypatch.setattr(HfApi, "create_commit", commit_after_somebody)


def test_push_keeps_what_somebody_writes_meanwhile(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    repository = hub.repositories[REPO_ID]
    card = repository.trees[repository.branches["main"]][README]
    edits = [{README: card + b"\n## Theirs\n"}, {README: card + b"\n## Theirs, corrected\n"}]
    push_in_between(monkeypatch, repository, edits)
    L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    assert b"## Theirs, corrected" in tree[README]
    assert load(REPO_ID)[0].fingerprint() == make_network(seed=1).fingerprint()
    assert repository.messages == ["Upload L3RS", "In between", "In between", "Upload L3RS"]


def test_push_that_never_gets_its_turn(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    repository = hub.repositories[REPO_ID]
    push_in_between(monkeypatch, repository, [{"log": str(index).encode()} for index in range(100)])
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    assert_one_sentence(error, REPO_ID, "changed on the Hub", "push again")
    assert "Upload L3RS" not in repository.messages[1:]


def test_results_on_the_hub_that_are_none(hub):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    hub.repositories[REPO_ID].commit("main", {RESULTS_NAME: b"[]"}, "By hand")
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, RESULTS_NAME, f"{REPO_ID!r} on the Hub")


def test_save_pretrained_can_push(hub, tmp_path):
    url = L3RS(network=make_network()).save_pretrained(
        tmp_path / "out", repo_id=REPO_ID, push_to_hub=True, private=True
    )
    assert hub.repositories[REPO_ID].is_private
    assert url == f"{hub.url}/{REPO_ID}/commit/{hub.repositories[REPO_ID].branches['main']}"


def test_cache_serves_while_offline(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    commit_hash = L3RS.from_pretrained(REPO_ID).commit_hash
    hub.repositories.clear()
    assert load(REPO_ID, local_files_only=True)[1] == commit_hash
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(REPO_ID)[1] == commit_hash
    assert load(REPO_ID, revision=commit_hash)[0].fingerprint() == make_network().fingerprint()


def test_import_is_light():
    code = (
        "import sys, hf_l3rs.cli.main; hf_l3rs.cli.main.make_parser(); assert 'torch' not in sys.modules;"
        "import hf_l3rs.hub.artifact; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
