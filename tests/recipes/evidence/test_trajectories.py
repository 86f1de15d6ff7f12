import math

import pandas as pd
import pytest
import torch

from hf_l3rs.errors import DataError
from recipes.evidence.trajectories import (
    LayerDecision,
    directions_of,
    last_decisions,
    read_trajectory,
    record_trajectory,
    to_csv,
    to_table,
)
from tests.evaluation.images import image_task
from tests.tiny import learned_optimizer, parameters, tiny_resnet, trained_network


def test_a_run_becomes_a_table_that_survives_its_file(tmp_path):
    task = image_task(num_steps=3)
    task = task._replace(initial_state={name: tensor.clone() for name, tensor in task.initial_state.items()})
    network = trained_network(task.model)
    table = record_trajectory(task.model, network, task)
    layers = [name for name, _ in task.model.named_parameters()]
    assert table.layer.tolist() == layers * 3 and table.step.tolist() == sorted([1, 2, 3] * len(layers))
    assert directions_of(table) == list(network.config.directions)
    (tmp_path / "trajectories.csv").write_bytes(to_csv(table))
    pd.testing.assert_frame_equal(read_trajectory(tmp_path / "trajectories.csv"), table)
    again = record_trajectory(tiny_resnet(seed=3), network, task)
    pd.testing.assert_frame_equal(again, table)


def test_a_run_that_diverges_is_refused():
    task = image_task(num_steps=3)
    state = {name: tensor.clone() for name, tensor in task.initial_state.items()}
    state["classifier.1.bias"].fill_(math.nan)
    with pytest.raises(DataError, match="diverges on this task"):
        record_trajectory(task.model, trained_network(task.model), task._replace(initial_state=state))


def test_files_of_something_else_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_trajectory(tmp_path / "none.csv")
    (tmp_path / "rows.csv").write_text("optimizer,loss\nAdam,1\n")
    with pytest.raises(DataError, match="does not hold decisions"):
        read_trajectory(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_bytes(to_csv(to_table([], ["adam"])))
    with pytest.raises(DataError, match="does not hold decisions"):
        read_trajectory(tmp_path / "rows.csv")


def test_four_digits_are_kept():
    table = to_table([LayerDecision(1, 2, "fc.weight", "head.weight", 1.0, 1 / 3, (2 / 3, 1 / 3))], ["adam", "sgd"])
    assert table.iloc[0].tolist() == [1, 2, "fc.weight", "head.weight", 1.0, 0.3333, 0.6667, 0.3333]


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
