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
    describe_behaviour,
    last_decisions,
    record_trajectory,
    to_csv,
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
