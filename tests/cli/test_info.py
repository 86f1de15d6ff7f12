"""What there is to know of a learned optimizer."""

import json

import pytest

from hf_l3rs.hub.artifact import load_network, released_names, save_network
from tests.hub.examples import change_config
from tests.tiny import tiny_resnet, trained_network


HOSTILE = "\x1b]0;title\x07\x1b[31mred\x1b[0m\r\n\x9b2J\x7f \u202e meta"


@pytest.fixture
def own(inputs, tmp_path):
    """An L3RS for the base model, in a folder of the test's own."""
    save_network(load_network(inputs / "l3rs"), tmp_path / "l3rs")
    return tmp_path / "l3rs"


def test_the_released_ones_are_listed(run):
    status, out, err = run("info")
    assert (status, err) == (0, "") and all(name in out for name in released_names())
    listed = json.loads(run("info", "--json")[1])
    assert [each["name"] for each in listed] == released_names()
    assert all(each["model"] and each["trainable"] and each["steps"] for each in listed)


def test_one_is_described_in_a_screen(run):
    for name in released_names():
        status, out, _ = run("info", name)
        assert status == 0 and len(out.splitlines()) <= 40 and "{" not in out and max(map(len, out.splitlines())) < 120
    data = json.loads(run("info", "l3rs-resnet-tiny-fashion", "--json")[1])
    assert data["config"]["directions"] == ["adam", "sgd", "muon"] and len(data["results"]) >= 4


def test_the_output_folder_of_a_run_has_one(run, own):
    data = json.loads(run("info", own.parent, "--json")[1])
    assert data["fingerprint"] == load_network(own).fingerprint()


def test_layers_of_a_model_are_told_by_how_they_are_known(run, inputs, tmp_path, own):
    status, out, _ = run("info", own, "--model", inputs / "base")
    assert status == 0 and "20 by name" in out and "compare" in out and "100 %" not in out
    change_config(own, base_model=str(inputs / "base"))
    assert "made for this model" in run("info", own, "--model", inputs / "base")[1]
    layers = json.loads(run("info", own, "--model", inputs / "base", "--json")[1])["layers"]
    assert layers == {"name": 20}
    status, out, _ = run("info", "l3rs-vit-tiny-fashion", "--model", inputs / "base")
    assert status == 0 and "unknown" in out and "refused" in out


def test_a_model_without_a_learned_optimizer_is_refused(run, inputs):
    status, out, err = run("info", "--model", inputs / "base")
    assert (status, out) == (1, "") and "name it" in err


def test_no_text_of_an_artefact_is_a_command_to_the_terminal(run, own):
    summary = {HOSTILE: HOSTILE, "datasets": [HOSTILE], "trainable": HOSTILE, "min_steps": HOSTILE, "seconds": HOSTILE}
    change_config(own, base_model=HOSTILE, model_type=HOSTILE, library_version=HOSTILE, meta_training=summary)
    status, out, err = run("info", own)
    assert (status, err) == (0, "") and "red" in out and all(line.isprintable() for line in out.split("\n"))
    for changes in ({HOSTILE: 1}, {"base_model": [HOSTILE]}, {"layers": [{HOSTILE: 1}]}, {"directions": [HOSTILE]}):
        save_network(trained_network(tiny_resnet()), own)
        change_config(own, **changes)
        status, out, err = run("info", own)
        assert (status, out, err.count("\n")) == (1, "", 1) and err.strip("\n").isprintable()
    status, _, err = run("info", own / HOSTILE)
    assert status == 1 and err.strip("\n").isprintable()
