"""How the learning rate of a baseline goes over its run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


# By name: `(step, num_steps) -> share of the learning rate`, from 0 steps taken on; the fall ends at zero.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, num_steps: 1.0,
    "cosine": lambda step, num_steps: 0.5 * (1 + math.cos(math.pi * step / num_steps)),
    "linear": lambda step, num_steps: 1 - step / num_steps,
}


def share_of_rate(schedule: str, step: int, num_training_steps: int, warmup: float = 0.0) -> float:
    """
    Returns the share of the learning rate that a step is taken with.

    Args:
        schedule (`str`): One of SCHEDULES.
        step (`int`): Steps taken before it.
        num_training_steps (`int`): Length of the run.
        warmup (`float`, *optional*, defaults to 0.0):
            Share of the steps, in [0, 1), over which the rate rises linearly before it follows the schedule. No step
            is taken at zero: in runs of ten steps that would be one lost.
    """
    num_warmup = round(warmup * num_training_steps)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return SCHEDULES[schedule](step - num_warmup, num_training_steps - num_warmup)


def make_scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, num_training_steps: int, warmup: float = 0.0
) -> LRScheduler | None:
    """Returns what sets the learning rates of all groups as [`share_of_rate`] has it; `None` if they stay."""
    if schedule == "constant" and not warmup:
        return None
    return LambdaLR(optimizer, lambda step: share_of_rate(schedule, step, num_training_steps, warmup))
