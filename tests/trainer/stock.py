"""The stock Trainer with an L3RS, as the tests of the integration build it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.integrations
from torch import nn
from transformers import Trainer
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS, HyperParamSearchBackendBase
from transformers.trainer_utils import HPSearchBackend

from hf_l3rs import L3RS
from hf_l3rs.trainer.callback import unwrap_optimizer
from tests.tiny import RandomImages, Recorder, learned_optimizer, training_arguments


def stock_trainer(
    model: nn.Module,
    folder: Path,
    optimizer: Any = None,
    scheduler: Any = None,
    callbacks: Any = (),
    size: int = 32,
    cls: type[Trainer] = Trainer,
    **args: Any,
) -> Trainer:
    optimizer = learned_optimizer(model) if optimizer is None else optimizer
    recorder = Recorder()
    trainer = cls(
        model=model,
        args=training_arguments(folder, **args),
        train_dataset=RandomImages(size),
        eval_dataset=RandomImages(4),
        optimizers=(optimizer, scheduler),
        callbacks=[recorder, *callbacks],
    )
    trainer.recorder = recorder
    return trainer


def raw(trainer: Trainer) -> L3RS:
    optimizer = trainer.optimizer
    while not isinstance(optimizer, L3RS):
        optimizer = optimizer.optimizer
    return optimizer


class _GridSearch(HyperParamSearchBackendBase):
    """Stands for Optuna: the Trainer asks a trial for no more than this."""

    name = "grid"

    @staticmethod
    def is_available():
        return True

    def run(self, trainer, n_trials, direction, **kwargs):
        runs = []
        for number in range(n_trials):
            trainer.train(trial=SimpleNamespace(number=number, params={}))
            own = unwrap_optimizer(trainer.optimizer)
            runs.append((own, trainer.args.max_steps, own.param_groups[0]["step"]))
        return runs


def search(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int, int]]:
    """Searches hyperparameters in two trials: the optimizer, the steps asked for and the steps taken of each."""
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, _GridSearch)
    monkeypatch.setattr(transformers.integrations, "hp_params", lambda trial: trial.params)
    return trainer.hyperparameter_search(lambda trial: {"max_steps": 2 + trial.number}, n_trials=2, backend="optuna")
