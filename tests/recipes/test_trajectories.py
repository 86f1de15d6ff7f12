"""What an L3RS decides over a run: the table, the picture, and what is said of it."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from hf_l3rs import L3RSArtifact
from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.plots import is_picture_of
from hf_l3rs.hub.results import read_results
from recipes import release, trajectories
from recipes.trajectories import (
    LayerDecision,
    describe_behaviour,
    last_decisions,
    plot_trajectories,
    record_trajectory,
    to_csv,
    to_table,
)
from tests.evaluation.images import image_task
from tests.tiny import learned_optimizer, parameters, trained_network


CONFIG = "recipes/configs/resnet_tiny_fashion.yaml"


def test_what_was_seen_goes_onto_the_card(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    text = trajectories.main([CONFIG, "--num_steps=2", "--evaluation_size=50", f"--output_dir={tmp_path}"])
    table = pd.read_csv(tmp_path / "trajectories.csv")
    assert text == describe_behaviour(table) and table.step.max() == 2 and text in capsys.readouterr().out
    l3rs = "hf_l3rs/released/l3rs-resnet-tiny-fashion"
    results = read_results(tmp_path / "behaviour.json")
    assert (results.entries, results.behaviour) == ((), text)
    assert results.fingerprint == L3RSArtifact.from_pretrained(l3rs).network.fingerprint()
    files = [f"{l3rs}/results.json", str(tmp_path / "behaviour.json")]
    release.main(["release", "--l3rs", l3rs, "--results", *files], tmp_path, tmp_path / "cards")
    assert text in (tmp_path / "cards/release/README.md").read_text()
    assert read_results(tmp_path / "release/results.json").entries == read_results(files[0]).entries


def test_a_run_that_diverges_says_nothing():
    task = image_task(num_steps=12)
    network = trained_network(task.model)
    network = type(network)(network.config.replace(base_step=1e6))
    with pytest.raises(DataError, match="diverges"):
        record_trajectory(task.model, network, task)


STEPS = 20
SIZES = {"head.weight": lambda t: 3.0 if t == 0.25 else 1.0 - 0.9 * t, "norm.bias": lambda t: 0.2}


def table(sizes, shares):
    """For each role a function of the share of the run, for sizes and for the share of the first direction."""
    decisions = [
        LayerDecision(step, STEPS, f"{role}.{index}", role, index / 2, size(step / STEPS) * factor, (share, 1 - share))
        for step in range(1, STEPS + 1)
        for role, size in sizes.items()
        for index, factor in enumerate((0.5, 2.0))
        for share in [shares[role](step / STEPS)]
    ]
    return to_table(decisions, ["adam", "sgd"])


@pytest.mark.parametrize(
    "head, norm, said",
    [
        (lambda t: 0.7, lambda t: 0.9 - 0.6 * (t > 0.5), "goes from 80 % to 50 %, most of all in the norm biases"),
        (lambda t: 0.2, lambda t: 0.4, "near 70 %, from 60 % in the norm biases to 80 % in the head weights."),
        (lambda t: 0.2 + 0.2 * (t > 0.5), lambda t: 0.4 - 0.2 * (t > 0.5), "stays near 70 %, but goes from "),
    ],
)
def test_two_sentences(head, norm, said):
    text = describe_behaviour(table(SIZES, {"head.weight": head, "norm.bias": norm}))
    assert text.startswith(
        "It takes its largest steps in the head weights, 3 times the base step after 5 of 20 steps, and lowers them "
        "to 0.1 times by the end; its smallest are in the norm biases, 0.2 times over the run. Over the run the share "
    )
    assert said in text


@pytest.mark.parametrize("name", ["l3rs-resnet-tiny-fashion", "l3rs-vit-tiny-fashion"])
def test_cards_say_what_the_stored_decisions_show(name):
    results = json.loads(Path("hf_l3rs/released", name, "results.json").read_text(encoding="utf-8"))
    table = pd.read_csv(f"recipes/results/{name}/trajectories.csv")
    assert results["behaviour"] == describe_behaviour(table)
    assert is_picture_of(f"recipes/results/{name}/trajectories.png", to_csv(table))


def test_decisions_are_what_was_done_and_layers_without_a_gradient_shift_nothing():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 3))
    optimizer = learned_optimizer(model, directions=("sgd",)).bind(model, num_training_steps=5)
    before = parameters(model)
    model[2](model[0](torch.ones(2, 4))).square().mean().backward()
    optimizer.step(1.0)
    made = list(last_decisions(optimizer))
    assert [each.layer for each in made] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [each.depth for each in made] == [0, 0.2, 0.8, 1] and {each.mixture for each in made} == {(1.0,)}
    for each in made:  # with a single direction, of norm one, the update's size is λ
        moved = (parameters(model)[each.layer] - before[each.layer]).square().mean().sqrt()
        assert each.relative_step * optimizer.config.base_step == pytest.approx(float(moved), rel=1e-4)


def test_steps_and_shares_of_every_layer_are_drawn(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    decisions = table(SIZES, dict.fromkeys(SIZES, lambda t: 0.5))
    plot_trajectories(decisions, tmp_path / "trajectories.png", "title")
    axes = [axis for axis in pyplot.gcf().axes if axis.get_visible() and axis.lines]
    monkeypatch.undo()
    pyplot.close("all")
    assert [axis.get_title() for axis in axes] == ["head weights", "norm biases", "", ""]
    assert [len(axis.lines) for axis in axes] == [2] * 4 and axes[0].get_ylabel() == "step / base step"
    assert axes[0].lines[1].get_ydata().max() == 6.0 and axes[2].get_ylabel() == "share of adam"
    assert is_picture_of(tmp_path / "trajectories.png", to_csv(decisions))
