"""Measured results: strictly checked, the same after a file, and only beside the meta-weights that they are of."""

import json
import math
from dataclasses import replace

import pytest

from hf_l3rs import L3RSArtifact
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.artifact import gather_release, save_network
from hf_l3rs.hub.results import Results, read_results, write_results
from tests.hub.examples import assert_one_sentence, contents, make_network, make_results
from tests.hub.test_card import RESULT, RESULTS


def test_results_survive_their_file(tmp_path):
    file = tmp_path / "results.json"
    infinite = replace(RESULT, loss=math.inf, baseline_loss=math.inf, hub_id=None)
    for results in (RESULTS, replace(RESULTS, entries=(infinite,)), Results("0" * 16, (), "It takes small steps.")):
        write_results(results, file)
        before = file.read_bytes()
        assert json.loads(before, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert read_results(file) == results
        write_results(read_results(file), file)
        assert file.read_bytes() == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"loss": float("nan")}, "loss must be .*nan"),
        ({"loss": -0.1}, "loss must be in"),
        ({"loss": True}, "loss must be a number"),
        ({"loss_stderr": float("inf")}, "loss_stderr must be in"),
        ({"command": " "}, "command must be text"),
        ({"num_tasks": 1.5}, "num_tasks must be a whole number"),
        ({"baseline_accuracy": 1.5}, "baseline_accuracy must be in"),
        ({"wins": 13}, "at most num_tasks=12"),
        ({"num_diverged": 13}, "at most num_tasks=12"),
        ({"verdict": "better"}, "verdict must be"),
        ({"hub_id": "not an id"}, "hub_id must be an id"),
    ],
)
def test_invalid_result(changes, words):
    with pytest.raises(ArtifactError, match=words) as error:
        replace(RESULT, **changes)
    assert_one_sentence(error)


def entry(**changes):
    return lambda content: content["results"][0].update(changes)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda content: content.update(more=1), "it needs"),
        (lambda content: content.pop("fingerprint"), "it needs"),
        (lambda content: content.update(results={}), "must be a list"),
        (lambda content: content.update(behaviour=3), "behaviour must be"),
        (lambda content: content.update(fingerprint=3), "fingerprint must be text"),
        (lambda content: content.update(fingerprint="\x1b[31m"), "16 hexadecimal digits"),
        (lambda content: content["results"][1].pop("loss"), "lacks 'loss'"),
        (lambda content: content["results"].append([["loss", 1]]), "not an entry"),
        (entry(**{"a\n\x1b": 1}), "is unknown"),
        (entry(setting="infinity", wins="infinity"), "wins"),
    ],
)
def test_invalid_results_file(tmp_path, change, words):
    file = tmp_path / "results.json"
    write_results(RESULTS, file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=words) as error:
        read_results(file)
    assert_one_sentence(error, str(file), "measure again, or remove the file.")


# From the output folder of a run to the folder that is pushed


def measured(network, **changes):
    results = make_results(network)
    return replace(results, entries=tuple(replace(entry, **changes) for entry in results.entries))


def test_results_and_behaviour_of_an_output_folder_are_found(tmp_path):
    network = make_network()
    save_network(network, tmp_path / "l3rs")
    write_results(measured(network), tmp_path / "results.json")
    write_results(measured(network, split="other"), tmp_path / "deeper/results.json")
    write_results(Results(network.fingerprint(), (), "It rests."), tmp_path / "deeper/behaviour.json")
    write_results(measured(make_network(1), split="not of these"), tmp_path / "others/results.json")
    (tmp_path / "deeper/curves.png").write_bytes(b"png")
    assert gather_release(tmp_path) == tmp_path / "l3rs"
    results = read_results(tmp_path / "l3rs/results.json")
    assert {entry.split for entry in results.entries} == {"test", "other"} and results.behaviour == "It rests."
    before = (tmp_path / "l3rs/README.md").read_bytes()
    assert gather_release(tmp_path) == tmp_path / "l3rs" and (tmp_path / "l3rs/README.md").read_bytes() == before
    assert b"It rests." in before and b"](curves.png)" in before


def test_an_l3rs_alone_is_left_as_it_was_saved_and_further_results_are_put_beside_it(saved, tmp_path):
    before = contents(saved)
    assert gather_release(saved) == saved and contents(saved) == before
    write_results(measured(make_network()), tmp_path / "evaluation/results.json")
    gather_release(saved, [tmp_path / "evaluation"])
    assert len(read_results(saved / "results.json").entries) == 1
    assert gather_release("l3rs-resnet-tiny-fashion").name == "l3rs-resnet-tiny-fashion"


def test_the_folder_of_a_run_is_no_l3rs_and_says_where_it_is(tmp_path):
    save_network(make_network(), tmp_path / "l3rs")
    with pytest.raises(ArtifactError, match="has no config.json; pass .*/l3rs"):
        L3RSArtifact.from_pretrained(tmp_path)
