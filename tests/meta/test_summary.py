"""What a run tells of itself; the rest is in tests/meta/test_trainer.py."""

import torch

from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.checkpoint import Progress
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.meta.gradient import GradientConfig
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.meta.summary import describe_strategy, summarise_run
from hf_l3rs.meta.windows import WindowConfig


def test_a_strategy_has_its_own_settings_alone():
    evolution, gradient, windows = (
        describe_strategy(ESConfig(num_generations=3), config, MetaLoss(), True)
        for config in (None, GradientConfig(), WindowConfig())
    )
    assert evolution["estimator"] == "evolution" and evolution["task_per_pair"] and "num_tasks" not in evolution
    assert gradient["estimator"] == "gradient" and "sigma" not in gradient and "window_steps" not in gradient
    assert windows["estimator"] == "windows" and {"sigma", "window_steps"} <= set(windows)


def test_costs_of_the_start_are_added():
    progress = Progress(OuterState(torch.zeros(1)), {}, references={"Adam": 0.5})
    progress.cost["inner_steps"] = 10
    summary = summarise_run(progress, {}, {"inner_steps": 7})
    assert (summary["inner_steps"], summary["cost_in_plain_steps"]) == (17, 7)
    assert summary["validation_loss_Adam"] == 0.5 and summary["started_from"] == {"inner_steps": 7}
