"""What a run made and what was measured with it become the Hub repository."""

from dataclasses import replace

import pytest

from hf_l3rs import L3RSArtifact
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.hub.release import gather_release, merge_results, write_release
from hf_l3rs.hub.results import Results, read_results, write_results
from tests.hub.examples import assert_one_sentence, make_network, make_results


def measured(network, **changes):
    results = make_results(network)
    return replace(results, entries=tuple(replace(entry, **changes) for entry in results.entries))


def test_every_measurement_enters_once_and_as_measured_last():
    network = make_network()
    first, again, other = measured(network), measured(network, loss=0.2), measured(network, split="validation")
    untrained = measured(network, optimizer="L3RS, untrained")
    merged = merge_results(network.fingerprint(), [first, None, other, untrained, again])
    assert merged == Results(network.fingerprint(), (*again.entries, *other.entries))
    assert merge_results(network.fingerprint(), [None, untrained]) is None


def test_results_and_behaviour_of_an_output_folder_are_found(tmp_path):
    network = make_network()
    save_network(network, tmp_path / "l3rs")
    write_results(measured(network), tmp_path / "results.json")
    write_results(measured(network, split="other"), tmp_path / "deeper/results.json")
    write_results(Results(network.fingerprint(), (), "It rests."), tmp_path / "deeper/behaviour.json")
    assert gather_release(tmp_path) == tmp_path / "l3rs"
    results = read_results(tmp_path / "l3rs/results.json")
    assert {entry.split for entry in results.entries} == {"test", "other"} and results.behaviour == "It rests."
    before = (tmp_path / "l3rs/README.md").read_bytes()
    assert gather_release(tmp_path) == tmp_path / "l3rs" and (tmp_path / "l3rs/README.md").read_bytes() == before
    assert b"It rests." in before


def test_an_l3rs_alone_is_left_as_it_was_saved(saved):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert gather_release(saved) == saved
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_further_results_are_put_beside_an_l3rs(saved, tmp_path):
    write_results(measured(make_network()), tmp_path / "evaluation/results.json")
    gather_release(saved, [tmp_path / "evaluation"])
    assert len(read_results(saved / "results.json").entries) == 1


def test_results_of_other_meta_weights_are_refused(tmp_path):
    write_results(measured(make_network(1)), tmp_path / "results.json")
    with pytest.raises(ArtifactError) as error:
        write_release(L3RSArtifact(make_network()), tmp_path / "release", [tmp_path / "results.json"])
    assert_one_sentence(error, "measured with other meta-weights", "leave the file out")
    assert not (tmp_path / "release").exists()


def test_the_folder_of_a_run_is_no_l3rs_and_says_where_it_is(tmp_path):
    with pytest.raises(ArtifactError, match=r"has no config.json; pass the folder that L3RS.save_pretrained wrote"):
        L3RSArtifact.from_pretrained(tmp_path)
    save_network(make_network(), tmp_path / "l3rs")
    with pytest.raises(ArtifactError, match=r"has no config.json; pass .*/l3rs, in which it has one"):
        L3RSArtifact.from_pretrained(tmp_path)
