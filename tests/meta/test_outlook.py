"""A run says before it starts what it will cost, and in the end what to do where it got nowhere."""

import logging

import pytest
import torch

from hf_l3rs.evaluation.data_limit import DATA_LIMIT
from hf_l3rs.meta.checkpoint import Progress
from hf_l3rs.meta.gradient import GradientConfig
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.meta.outlook import foresee, look_back
from hf_l3rs.meta.windows import WindowConfig
from tests.meta.meta_train_tiny import make_trainer


@pytest.mark.parametrize("gradient", [None, GradientConfig(num_tasks=3), WindowConfig(num_tasks=3)])
def test_the_cost_of_a_generation_is_what_it_was(gradient, tmp_path):
    trainer = make_trainer(str(tmp_path), 1, gradient=gradient)
    trainer.train()
    cost = trainer.estimator.cost_of_generation(4)
    if not isinstance(gradient, WindowConfig):  # whose first runs are cut short
        assert cost == pytest.approx(trainer.progress.cost["cost_in_plain_steps"])
    said = foresee(trainer.estimator, 10, trainer.validation_tasks, 5, 3.0)
    assert f"10 generations cost about {10 * cost:,.0f} plain inner steps, and 5 validations 60" in said
    assert f"about {(10 * cost + 60) * 3 / 60:.2g} minutes" in said


def test_a_run_says_both_of_itself(tmp_path, caplog):
    trainer = make_trainer(str(tmp_path), 2)
    trainer.selection._measure_references = lambda: {"Adam": 0.0}
    with caplog.at_level(logging.INFO, logger="hf_l3rs.meta"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if "about" in record.getMessage() or record.levelno > 20]
    assert said[0].startswith("2 generations cost about 48 plain inner steps, and 1 validations 12:")
    assert "no better than that of tuned Adam, 0" in said[1] and len(said) == 2


def over(best, best_generation=4, **references):
    state = OuterState(torch.zeros(1), generation=4)
    return look_back(Progress(state, {}, None, best_generation, best, references))


def test_a_run_that_beats_its_references_needs_no_advice():
    assert over(0.4, Adam=0.5, untrained=0.9) is None and over(None, Adam=0.5) is None and over(0.4) is None
    assert over(0.4, **{"Adam": 0.5, DATA_LIMIT: 0.1}) is None


def test_one_that_does_not_is_told_to_train_longer():
    said = over(0.6, Adam=0.5, untrained=0.9)
    assert "0.6, is no better than that of tuned Adam, 0.5, though it was still falling: train longer" in said
    assert "no better than that of an untrained L3RS, 0.5:" in over(0.6, 2, untrained=0.5)
