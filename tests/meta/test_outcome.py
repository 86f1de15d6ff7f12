"""A run that is over says what to do where it got nowhere, and before it starts what it will cost."""

import logging

import torch

from hf_l3rs.meta.checkpoint import Progress
from hf_l3rs.meta.meta_trainer import look_back
from hf_l3rs.meta.outer import OuterState
from tests.meta.meta_train_tiny import make_trainer


def test_a_run_says_both_of_itself(tmp_path, caplog):
    trainer = make_trainer(str(tmp_path), 2)
    trainer.selection._measure_references = lambda: {"Adam": 0.0}
    with caplog.at_level(logging.INFO, logger="hf_l3rs.meta"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if "about" in record.getMessage() or record.levelno > 20]
    assert said[0].startswith("2 generations cost about 60 plain inner steps, validations included: about ")
    assert "no better than that of tuned Adam, 0" in said[1] and len(said) == 2


def over(best, best_generation=4, **references):
    state = OuterState(torch.zeros(1), generation=4)
    return look_back(Progress(state, {}, None, best_generation, best, references))


def test_a_run_that_beats_its_references_needs_no_advice():
    assert over(0.4, Adam=0.5, untrained=0.9) is None and over(None, Adam=0.5) is None and over(0.4) is None


def test_one_that_does_not_is_told_to_train_longer():
    said = over(0.6, Adam=0.5, untrained=0.9)
    assert "0.6, is no better than that of tuned Adam, 0.5, though it was still falling: train longer" in said
    assert "no better than that of an untrained L3RS, 0.5:" in over(0.6, 2, untrained=0.5)
