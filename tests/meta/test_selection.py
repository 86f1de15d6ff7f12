"""What is validated, what is kept, what is drawn of it, and what a run is said to take."""

import json
import math

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from hf_l3rs.cli.init import Plan, StepCosts, measure_steps
from hf_l3rs.distributed import make_accelerator
from hf_l3rs.meta.checkpoint import METRICS_NAME, Progress
from hf_l3rs.meta.outer import OuterConfig, OuterState
from hf_l3rs.meta.selection import CURVE_NAME, Selection
from hf_l3rs.tasks.task_arguments import TaskArguments
from tests.meta.meta_train_tiny import make_trainer
from tests.meta.problems import make_network, make_tasks


def make_selection(num_tasks=1, num_generations=100):
    tasks = [make_tasks().draw(0, 0, index) for index in range(num_tasks)]
    selection = Selection(tasks, make_network().config, Accelerator(cpu=True), 2, num_generations)
    selection.mean_loss = lambda vector: float(vector[0]) if vector[0] == vector[0] else math.inf
    return selection


def test_the_best_is_kept():
    selection, progress = make_selection(), Progress(OuterState.start(torch.zeros(3)), {})
    for generation, value in ((2, 5.0), (4, 3.0), (6, 4.0), (8, math.nan)):
        progress.state = OuterState.start(torch.full((3,), value), generation)
        metrics = selection.validate(progress)
        assert metrics["validation_loss"] == (value if value == value else math.inf)
    assert (progress.best_loss, progress.best_generation) == (3.0, 4)
    assert torch.equal(progress.best_mean, torch.full((3,), 3.0))


def test_the_curve_of_a_short_run_has_several_points_all_the_same(tmp_path):
    make_trainer(str(tmp_path), 5, validation_interval=10).train()
    lines = [json.loads(line) for line in (tmp_path / METRICS_NAME).read_text().splitlines()]
    assert all(line["validation_loss"] > 0 for line in lines) and len(lines) == 5
    with Image.open(tmp_path / CURVE_NAME) as image:
        assert image.width > 400


def test_steps_are_measured_and_the_graph_is_counted():
    narrow, again, wide = (
        measure_steps(
            make_tasks(batch_size=size), make_network(), OuterConfig(estimator="gradient"), make_accelerator()
        )
        for size in (8, 8, 16)
    )
    assert narrow.differentiated > 0 and narrow.plain > 0 and narrow.evaluation >= 0
    assert narrow.graph_bytes == again.graph_bytes > 0 and wide.step_bytes > narrow.step_bytes == again.step_bytes


def test_times_add_up():
    costs = StepCosts(differentiated=3.0, plain=1.0, evaluation=2.0, graph_bytes=100, step_bytes=10)
    task_args = TaskArguments(datasets=["images"], min_steps=10)
    # a generation takes 2 * (10 * 3 + 2), a validation 4 * (10 + 2)
    for count, expected in ((5, 5 * 64 + 6 * 48), (100, 100 * 64 + 11 * 48)):
        assert costs.seconds(task_args, Plan(count, num_tasks=2, num_validation_tasks=4)) == expected
    mean = StepCosts(1.0, 0.0, 0.0, 0, 0).seconds(TaskArguments(["images"], min_steps=10, max_steps=30), Plan(1, 1))
    assert mean == pytest.approx(18.2, abs=0.01)
