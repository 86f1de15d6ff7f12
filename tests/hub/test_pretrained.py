"""The artefact without an optimizer around it, and from_pretrained and save_pretrained of L3RS, which build on it."""

import copy
import errno
import os
import pickle

import pytest
import torch

from hf_l3rs import L3RS, L3RSArtifact
from hf_l3rs.errors import ArtifactError, StorageError
from hf_l3rs.hub.artifact import CONFIG_NAME, README, RESULTS_NAME, WEIGHTS_NAME
from hf_l3rs.hub.card import generate_model_card
from hf_l3rs.hub.results import write_results
from tests.hub.examples import assert_one_sentence, make_model, make_network, make_results, train


def test_from_pretrained_takes_the_same_steps(saved):
    expected = train(L3RS(network=make_network()), make_model())
    for actual, value in zip(train(L3RS.from_pretrained(saved), make_model()), expected, strict=True):
        assert torch.equal(actual, value)


def test_from_pretrained_passes_its_arguments_on(saved):
    model = make_model()
    optimizer = L3RS.from_pretrained(str(saved), params=model, lr=0.5, num_training_steps=7)
    assert optimizer.is_bound
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["num_training_steps"] == 7
    assert optimizer.commit_hash is None


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        L3RS(network=make_network()).save_pretrained(tmp_path / name)
    for name in (CONFIG_NAME, WEIGHTS_NAME, README):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    L3RS.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before


def test_failing_write_leaves_the_old_files(saved, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        L3RS(network=make_network(seed=1)).save_pretrained(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_a_loaded_optimizer_is_copyable(saved):
    optimizer = L3RS.from_pretrained(saved, params=make_model(), num_training_steps=5)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.network.fingerprint() == optimizer.network.fingerprint()


def test_save_pretrained_keeps_what_a_person_wrote(saved):
    optimizer = L3RS.from_pretrained(saved)
    optimizer.save_pretrained(saved)
    card = (saved / README).read_text()
    (saved / README).write_text(card.replace("tags:\n", "tags:\n- mine\n") + "\n## My notes\n")
    optimizer.save_pretrained(saved)
    assert "## My notes" in (saved / README).read_text()
    assert "- mine" in (saved / README).read_text()


def test_card_shows_results_of_these_meta_weights_only(saved):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    L3RS(network=make_network()).save_pretrained(saved)
    assert "0.250 |" in (saved / README).read_text()
    L3RS(network=make_network(seed=1)).save_pretrained(saved)
    assert "0.250 |" not in (saved / README).read_text()
    assert "Nothing was measured" in (saved / README).read_text()


@pytest.fixture
def artifact():
    return L3RSArtifact(make_network())


def test_no_optimizer_is_built_to_save(tmp_path, monkeypatch, artifact):
    monkeypatch.setattr("hf_l3rs.optimizer.optimizer.L3RS.__init__", None)
    assert artifact.save_pretrained(tmp_path) is None
    loaded = L3RSArtifact.from_pretrained(tmp_path)
    assert loaded.network.fingerprint() == artifact.network.fingerprint()
    assert loaded.config.base_model == "org/tiny"
    assert loaded.commit_hash is None
    assert str(generate_model_card(loaded.config)) == (tmp_path / README).read_text()


# Destinations that cannot be written


def contents(folder):
    return {file.name: file.read_bytes() if file.is_file() else None for file in folder.iterdir()}


def test_a_file_in_place_of_the_folder(tmp_path, artifact):
    (tmp_path / "out").write_text("mine")
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(StorageError) as error:
            artifact.save_pretrained(folder)
        assert_one_sentence(error, str(folder), "choose another")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME, README])
def test_a_folder_in_place_of_a_file(saved, name):
    (saved / README).write_text("# Mine\n")
    (saved / name).unlink()
    (saved / name).mkdir()
    before = contents(saved)
    with pytest.raises(StorageError) as error:
        L3RSArtifact(make_network(seed=1)).save_pretrained(saved)
    assert_one_sentence(error, str(saved), f"{name} is a folder")
    assert contents(saved) == before


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_disk_that_takes_no_more(saved, monkeypatch, reason):
    before = contents(saved)
    replace = os.replace

    def fail_at_the_second(source, target):
        if str(target).endswith(CONFIG_NAME) and str(source).endswith(".tmp"):
            raise OSError(reason, os.strerror(reason))
        replace(source, target)

    monkeypatch.setattr("os.replace", fail_at_the_second)
    with pytest.raises(StorageError) as error:
        L3RSArtifact(make_network(seed=1)).save_pretrained(saved)
    assert_one_sentence(error, str(saved), os.strerror(reason), "choose another")
    assert contents(saved) == before


# Files that are there already and cannot be read


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\xff\xfe# Mine", "not text in UTF-8"),
        (b"---\ntags: 3\n---\n", "not valid YAML"),
        (b"---\ntags: [{a: b}]\n---\n", "not valid YAML"),
        (b"---\ndatasets: {a: b}\n---\n", "not valid YAML"),
        (b"---\nmetrics: [1]\n---\n", "not valid YAML"),
        (b"---\n3: 4\n---\n", "not valid YAML"),
        (b"---\nto_dict: 4\n---\n", "not valid YAML"),
        (b"---\neval_results: 4\n---\n", "not valid YAML"),
        (b"---\nmodel-index: [{name: a, results: [4]}]\n---\n", "not valid YAML"),
        (b"---\na: " + b"[" * 900 + b"]" * 900 + b"\n---\n", "not valid YAML"),
        (b"---\na: " + b"{a: " * 900 + b"}" * 900 + b"\n---\n", "not valid YAML"),
        (b"# Mine\n<!-- hf_l3rs:begin usage -->", "without its counterpart"),
    ],
)
def test_card_that_cannot_be_brought_up_to_date(saved, content, words):
    (saved / README).write_bytes(content)
    before = contents(saved)
    with pytest.raises(ArtifactError) as error:
        L3RSArtifact(make_network(seed=1)).save_pretrained(saved)
    assert_one_sentence(error, words)
    assert contents(saved) == before
