"""The stock Trainer with an L3RS, as the tests of the integration build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer

from hf_l3rs import L3RS
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
