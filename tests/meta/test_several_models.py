"""Meta-training over several models at once: what holds for one holds for all of them."""

import sys

import pytest
import torch

from hf_l3rs.meta.gradient import GradientConfig
from tests.meta.meta_train_tiny import make_trainer
from tests.meta.problems import TinyClassifier
from tests.meta.test_trainer import TORCHRUN, finish, launch, weights


COMMANDS = {"one": [sys.executable], "two": TORCHRUN}


@pytest.mark.distributed
def test_over_several_models_processes_and_interruptions_change_nothing_either(tmp_path):
    processes = [launch(command, tmp_path / name, 4, "mixture") for name, command in COMMANDS.items()]
    for process in processes:
        finish(process)
    half = make_trainer(str(tmp_path / "half"), 4, mixture=True, gradient=GradientConfig(num_tasks=3))
    half._all_agree_to_stop = lambda: half.progress.state.generation == 2
    half.train()
    finish(launch([sys.executable], tmp_path / "half", 4, "last", "mixture"))
    assert weights(tmp_path / "one") == weights(tmp_path / "two") == weights(tmp_path / "half")


@pytest.mark.parametrize("changes", [{}, {"gradient": GradientConfig(num_tasks=3)}])
def test_every_estimator_trains_every_model(tmp_path, changes):
    trainer = make_trainer(str(tmp_path), 2, mixture=True, **changes)
    before = trainer.network.to_vector()
    called = {model: 0 for model in trainer.tasks.models}
    for model in called:
        model.register_forward_hook(lambda model, *_: called.update({model: called[model] + 1}))
    assert not torch.equal(trainer.train().to_vector(), before)
    assert len(called) == 3 and min(called.values()) > 0
    assert trainer.progress.cost["num_diverged"] == 0


def test_models_of_all_tasks_are_on_the_device(tmp_path, monkeypatch):
    moved = []
    monkeypatch.setattr(TinyClassifier, "to", lambda model, device: moved.append(model))
    trainer = make_trainer(str(tmp_path), mixture=True)
    assert len(moved) == 6  # those of the validation tasks are others
    assert {*trainer.tasks.models, *(task.model for task in trainer.validation_tasks)} == set(moved)
