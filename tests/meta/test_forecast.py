"""What a meta-training will take, from a few steps."""

import pytest

from hf_l3rs.meta.forecast import StepCosts, forecast, forecast_by_pace, mean_steps, measure_steps
from hf_l3rs.meta.gradient import GradientConfig
from hf_l3rs.meta.meta_trainer import make_accelerator
from hf_l3rs.meta.windows import WindowConfig
from hf_l3rs.tasks.task_arguments import TaskArguments
from tests.meta.meta_train_tiny import make_trainer
from tests.meta.problems import make_network, make_tasks


def test_steps_are_measured():
    costs = measure_steps(make_tasks(), make_network(), GradientConfig(), make_accelerator())
    assert costs.differentiated > 0 and costs.plain > 0 and costs.evaluation >= 0
    assert costs.graph_bytes > 0 and costs.step_bytes > 0


def test_the_graph_is_counted_and_not_timed():
    first, second = (
        measure_steps(make_tasks(), make_network(), GradientConfig(), make_accelerator()) for _ in range(2)
    )
    assert (first.graph_bytes, first.step_bytes) == (second.graph_bytes, second.step_bytes)
    wider = measure_steps(make_tasks(batch_size=16), make_network(), GradientConfig(), make_accelerator())
    assert wider.step_bytes > first.step_bytes


def test_times_add_up():
    costs = StepCosts(differentiated=3.0, plain=1.0, evaluation=2.0, graph_bytes=100, step_bytes=10)
    task_args = TaskArguments(datasets=["images"], min_steps=10, num_validation_tasks=4)
    expected = forecast(costs, task_args, num_tasks=2, validation_interval=10)
    assert expected.generation_seconds == 2 * (10 * 3 + 2) and expected.validation_seconds == 4 * (10 + 2)
    assert expected.num_before == 12  # untrained, and the reference at eleven rates
    assert expected.num_bytes == 100 + 9 * 10
    assert [expected.seconds(count) for count in (5, 11)] == [13 * 48 + 5 * 64, 14 * 48 + 11 * 64]
    assert forecast(costs, task_args, 2, 0).seconds(5) == 5 * 64


def test_the_mean_of_log_uniform_horizons():
    assert mean_steps(TaskArguments(datasets=["images"], min_steps=10)) == 10
    assert mean_steps(TaskArguments(datasets=["images"], min_steps=10, max_steps=30)) == pytest.approx(18.2, abs=0.01)


@pytest.mark.parametrize("gradient", [None, GradientConfig(num_tasks=3), WindowConfig(num_tasks=3)])
def test_the_cost_of_a_generation_is_what_it_was(gradient, tmp_path):
    trainer = make_trainer(str(tmp_path), 1, gradient=gradient)
    trainer.train()
    cost = trainer.estimator.cost_of_generation(4)
    if not isinstance(gradient, WindowConfig):  # whose first runs are cut short
        assert cost == pytest.approx(trainer.progress.cost["cost_in_plain_steps"])
    expected = forecast_by_pace(trainer.estimator, trainer.validation_tasks, 2, 3.0)
    assert expected.seconds(10) == pytest.approx(3 * (10 * cost + 5 * 12))
