"""The artefact in a folder: what is saved is what is loaded, and what cannot be loaded or saved is explained."""

import copy
import pickle

import pytest
import torch

from hf_l3rs import L3RS, L3RSArtifact
from hf_l3rs.errors import ArtifactError, L3RSError
from hf_l3rs.hub.artifact import CONFIG_NAME, README, RESULTS_NAME, WEIGHTS_NAME, load_network, save_network
from hf_l3rs.hub.results import write_results
from tests.hub.examples import (
    assert_one_sentence,
    change_config,
    contents,
    make_model,
    make_network,
    make_results,
    train,
)


def test_loaded_network_is_the_saved_one_and_takes_the_same_steps(saved, tmp_path):
    network, loaded = make_network(), load_network(saved)
    assert loaded.fingerprint() == network.fingerprint()
    assert torch.equal(loaded.to_vector(), network.to_vector())
    assert loaded.config == network.config.replace(library_version=loaded.config.library_version)
    expected = train(L3RS(network=network), make_model())
    for actual, value in zip(train(L3RS.from_pretrained(saved), make_model()), expected, strict=True):
        assert torch.equal(actual, value)
    save_network(make_network().double(), tmp_path)  # which is saved in 32 bits
    assert load_network(tmp_path).fingerprint() == network.fingerprint()


def test_from_pretrained_passes_its_arguments_on_and_the_optimizer_is_copyable(saved):
    optimizer = L3RS.from_pretrained(str(saved), params=make_model(), lr=0.5, num_training_steps=7)
    group = optimizer.param_groups[0]
    assert optimizer.is_bound and (group["lr"], group["num_training_steps"]) == (0.5, 7)
    assert optimizer.commit_hash is None
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.network.fingerprint() == optimizer.network.fingerprint()


def test_saving_twice_gives_the_same_bytes_and_keeps_what_a_person_wrote(tmp_path):
    for name in ("a", "b"):
        L3RS(network=make_network()).save_pretrained(tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a").keys() == {CONFIG_NAME, WEIGHTS_NAME, README}
    card = (tmp_path / "a" / README).read_text()
    (tmp_path / "a" / README).write_text(card.replace("tags:\n", "tags:\n- mine\n") + "\n## My notes\n")
    L3RS.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "a")
    card = (tmp_path / "a" / README).read_text()
    assert "## My notes" in card and "- mine" in card


def test_card_shows_results_of_these_meta_weights_only(saved):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    for seed in (0, 1):
        L3RS(network=make_network(seed)).save_pretrained(saved)
        assert ("0.250 |" in (saved / README).read_text()) == (seed == 0)


LAYER = {"name": "x", "shape": [2], "role": "norm.weight", "block": ""}
OVERSIZED = {
    "wide": {"hidden_sizes": [30_000, 30_000]},
    "other": {"hidden_sizes": [64, 64]},
    "features": {"relative_times": [0.5] * 100_000},
    "many layers": {"layers": [{**LAYER, "name": f"x{index}"} for index in range(30_000)]},
    "step beyond floats": {"base_step": 10**400},
    "shape of many sizes": {"layers": [{**LAYER, "shape": [1] * 10_000}]},
    "endless horizon": {"num_training_steps": 10**30},
    "half a surrogate pair": {"base_model": "\ud800"},
    "unknown fields": {f"field {index}": index for index in range(100_000)},
    "commands to the terminal": {"\x1b[31m\n": 1},
}


@pytest.mark.parametrize("changes", OVERSIZED.values(), ids=OVERSIZED)
def test_sizes_are_refused_before_anything_is_allocated(saved, monkeypatch, changes):
    change_config(saved, **changes)
    monkeypatch.setattr("hf_l3rs.hub.artifact.L3RSNetwork", None)
    with pytest.raises(L3RSError) as error:
        load_network(saved)
    assert_one_sentence(error, str(saved))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\xff\xfe# Mine", "not text in UTF-8"),
        *(
            (b"---\n%b\n---\n" % metadata, "not valid YAML")
            for metadata in (
                b"tags: 3",
                b"tags: [{a: b}]",
                b"datasets: {a: b}",
                b"metrics: [1]",
                b"3: 4",
                b"to_dict: 4",
                b"eval_results: 4",
                b"model-index: [{name: a, results: [4]}]",
                b"a: " + b"{a: " * 900 + b"}" * 900,
            )
        ),
        (b"# Mine\n<!-- hf_l3rs:begin usage -->", "without its counterpart"),
    ],
)
def test_card_that_cannot_be_brought_up_to_date_is_left_as_it_is(saved, content, words):
    (saved / README).write_bytes(content)
    before = contents(saved)
    with pytest.raises(ArtifactError) as error:
        L3RSArtifact(make_network(seed=1)).save_pretrained(saved)
    assert_one_sentence(error, words)
    assert contents(saved) == before
