"""L3RS is its own learning rate schedule: what the Trainer makes is held, what the user passes is kept."""

import logging

import pytest
import torch
from transformers import SchedulerType
from transformers.optimization import GreedyLR

from hf_l3rs import L3RS, L3RSCallback
from tests.tiny import learned_optimizer, tiny_resnet, trained_network
from tests.trainer.stock import raw, stock_trainer


# What makes each schedule move within six steps; those that follow a metric get one that never improves.
KWARGS = {
    SchedulerType.REDUCE_ON_PLATEAU: {"patience": 0},
    SchedulerType.GREEDY: {"patience": 0, "factor": 0.5},
    SchedulerType.COSINE_WITH_MIN_LR: {"min_lr_rate": 0.1},
    SchedulerType.COSINE_WARMUP_WITH_MIN_LR: {"min_lr_rate": 0.1},
    SchedulerType.WARMUP_STABLE_DECAY: {"num_decay_steps": 3},
}


FOLLOW_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)


def scheduled(folder, kind, **changes):
    """Arguments of a run of six steps with a schedule of this kind."""
    args = {
        "max_steps": 6,
        "lr_scheduler_type": kind,
        "lr_scheduler_kwargs": KWARGS.get(kind, {}),
        "warmup_steps": 0 if kind in ("linear", "constant") else 2,
        "eval_strategy": "steps" if kind in FOLLOW_METRIC else "no",
        "eval_steps": 1,
        "metric_for_best_model": "flat",
        **changes,
    }
    return {"folder": folder, **args}


def trained(model, folder, optimizer, resume=None, scheduler=None, **args):
    trainer = stock_trainer(model, folder, optimizer, scheduler, **args)
    trainer.compute_metrics = lambda prediction: {"flat": 1.0}
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("kind", SchedulerType)
def test_every_schedule_of_the_trainer_is_held(kind, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hf_l3rs")
    model = tiny_resnet()
    args = scheduled(tmp_path / "whole", kind, save_strategy="steps", save_steps=3)
    trainer = trained(model, optimizer=None, **args)
    assert trainer.recorder.rates == [1.0] * 6
    assert raw(trainer).param_groups[0]["lr"] == 1.0
    (record,) = [record for record in caplog.records if "schedule" in record.message]
    assert f"'{kind.value}'" in record.message
    assert record.levelno == (logging.INFO if kind in ("linear", "constant") else logging.WARNING)
    if kind not in ("linear", "reduce_lr_on_plateau", "greedy"):  # one of each class of scheduler
        return
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert [group["lr"] for group in saved["param_groups"]] == [1.0]
    resumed = trained(model, optimizer=learned_optimizer(model), resume=str(checkpoint), **args)
    assert resumed.recorder.rates == [1.0] * 3
    trainer.train()  # anew: the Trainer makes another scheduler
    assert trainer.recorder.rates == [1.0] * 12


@pytest.mark.parametrize("kind", ["linear", "reduce_lr_on_plateau", "greedy"])
def test_held_at_the_lr_of_each_group(kind, tmp_path):
    model = tiny_resnet()
    named = list(model.named_parameters())
    groups = [{"params": named[:4], "lr": 2.0}, {"params": named[4:], "lr": 0.5}]
    trainer = trained(model, optimizer=L3RS(groups, network=trained_network(model)), **scheduled(tmp_path, kind))
    assert trainer.recorder.rates == [2.0] * 6
    assert [group["lr"] for group in raw(trainer).param_groups] == [2.0, 0.5]


@pytest.mark.parametrize("cls", [torch.optim.lr_scheduler.ReduceLROnPlateau, GreedyLR])
def test_schedule_of_the_user_that_follows_a_metric_is_kept(cls, tmp_path, caplog):
    model = tiny_resnet()
    optimizer = learned_optimizer(model)
    scheduler = cls(optimizer, factor=0.5, patience=0)
    trainer = trained(
        model, optimizer=optimizer, scheduler=scheduler, **scheduled(tmp_path, "linear", eval_strategy="steps")
    )
    assert trainer.recorder.rates == [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    assert "schedule" not in caplog.text


def test_schedule_of_the_user_is_kept_by_a_callback_that_comes_late(tmp_path):
    """An L3RS with parameters, built before the Trainer was imported, gets its callback by `add_callback`."""
    model = tiny_resnet()
    optimizer = learned_optimizer(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    trainer = stock_trainer(model, tmp_path, optimizer, scheduler)
    trainer.remove_callback(L3RSCallback)
    trainer.add_callback(L3RSCallback)
    trainer.train()
    assert trainer.recorder.rates == [1.0, 0.5, 0.25, 0.125]
