"""What goes wrong in silence is said once: gradients that are no numbers, a tiny lr, a run past its plan."""

import logging

import pytest
import torch
from torch import nn

from hf_l3rs import L3RS
from hf_l3rs.optimizer.config import LONG_RUN
from tests.tiny import tiny_resnet, trained_network


def test_skipped_layers_are_counted_and_warned_of_once(caplog):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = L3RS(model, num_training_steps=10)
    with caplog.at_level(logging.WARNING, logger="hf_l3rs"):
        for k in range(4):
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            if k < 2:
                model[0].weight.grad.fill_(torch.nan)
                model[1].bias.grad.fill_(torch.inf)
            optimizer.step(1.0)
            assert optimizer.statistics().get("skipped_layers", 0) == (2 if k < 2 else 0)
    (record,) = caplog.records
    assert "gradients of 2 layers are not numbers" in record.getMessage()
    assert all(param.isfinite().all() for param in model.parameters())


def warnings_of(caplog, lr=1.0, planned=4, num_steps=3, trained_steps=4, initial_lr=None):
    """What a run is warned of."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    network = trained_network(model, num_training_steps=trained_steps)
    optimizer = L3RS(model, network=network, lr=lr, num_training_steps=planned)
    if initial_lr is not None:
        optimizer.param_groups[0]["initial_lr"] = initial_lr
    with caplog.at_level(logging.WARNING, logger="hf_l3rs"):
        for _ in range(num_steps):
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            optimizer.step(1.0)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "run",
    [
        {},
        {"lr": 0.05},
        {"lr": 0.0, "num_steps": 6},
        {"lr": 0.001, "initial_lr": 1.0},
        {"num_steps": 4},
        {"planned": 4 * LONG_RUN},
        {"trained_steps": None, "planned": 10_000},
    ],
)
def test_a_run_as_it_should_be_is_warned_of_nothing(run, caplog):
    assert warnings_of(caplog, **run) == []


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"lr": 1e-3}, "no learning rate: at 0.001 it trains at a fraction"),
        ({"planned": 4 * LONG_RUN + 1}, "planned for 21 steps, but this L3RS was meta-trained for up to 4"),
        ({"num_steps": 7}, "past the 4 steps that L3RS was told of"),
    ],
)
def test_a_trap_is_warned_of_once(run, message, caplog):
    (said,) = warnings_of(caplog, **run)
    assert message in said


@pytest.mark.parametrize("is_training", [True, False])
def test_a_loss_that_is_not_seen_is_told_with_its_cause(is_training, caplog):
    """A model as from_pretrained returns it is in evaluation mode, in which its loss is not read."""
    model = tiny_resnet().train(is_training)
    optimizer = L3RS(network=trained_network(model)).bind(model, num_training_steps=3)
    inputs = torch.randn(2, 3, 8, 8)
    for _ in range(2):
        loss = model(pixel_values=inputs, labels=torch.arange(2)).loss
        if is_training:
            optimizer.loss_observer.clear()  # as of a model that returns no loss
        loss.backward()
        with caplog.at_level(logging.WARNING, logger="hf_l3rs"):
            optimizer.step()
    (record,) = caplog.records
    assert ("model.train()" in record.message) != is_training and ("step(loss)" in record.message) == is_training
