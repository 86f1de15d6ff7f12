import math

import pandas as pd
import pytest

from hf_l3rs.errors import DataError
from recipes.evidence.trajectories import directions_of, read_trajectory, record_trajectory, to_csv, to_table
from recipes.evidence.trajectory import LayerDecision
from tests.evaluation.images import image_task
from tests.tiny import tiny_resnet, trained_network


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
