"""The learned optimizer is found inside whatever Accelerate makes of it."""

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from hf_l3rs import L3RS
from hf_l3rs.trainer.callback import unwrap_optimizer


def test_an_l3rs_is_found_and_nothing_else_is_taken_for_one():
    Accelerator(cpu=True)  # its wrapper wants one to be there
    model = torch.nn.Linear(2, 2)
    optimizer = L3RS(model, num_training_steps=2)
    assert unwrap_optimizer(optimizer) is optimizer
    assert unwrap_optimizer(AcceleratedOptimizer(optimizer)) is optimizer
    assert unwrap_optimizer(torch.optim.Adam(model.parameters())) is None and unwrap_optimizer(None) is None
