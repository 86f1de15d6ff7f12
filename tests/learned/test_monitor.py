"""Gradients that are not numbers are counted, and warned of once."""

import logging

import torch
from torch import nn

from hf_l3rs import L3RS


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
