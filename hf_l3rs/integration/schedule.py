"""The learning rate schedule that a `Trainer` makes when nobody gave one, held at 1.0: L3RS is its own schedule."""

from __future__ import annotations

import logging
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import SchedulerType, TrainingArguments
from transformers.optimization import GreedyLR


logger = logging.getLogger(__name__)


def hold_schedule(lr_scheduler: Any, args: TrainingArguments, max_steps: int) -> None:
    """
    Holds every group's `lr` where it was before the schedule, and logs so: a warning if the user chose the schedule.

    Args:
        lr_scheduler (`LambdaLR`, `ReduceLROnPlateau` or `GreedyLR`):
            What `transformers.get_scheduler` makes, one of these for every `SchedulerType`. Others, which an
            overridden `create_scheduler` may make, are somebody's choice and left alone.
        args (`TrainingArguments`): The run's arguments.
        max_steps (`int`): Length of the run in optimizer steps.
    """
    if isinstance(lr_scheduler, LambdaLR):
        lr_scheduler.lr_lambdas = [_hold for _ in lr_scheduler.lr_lambdas]
        lr_scheduler._last_lr = list(lr_scheduler.base_lrs)
        for group, lr in zip(lr_scheduler.optimizer.param_groups, lr_scheduler.base_lrs):
            group["lr"] = lr
    elif isinstance(lr_scheduler, (ReduceLROnPlateau, GreedyLR)):  # these have not moved yet
        lr_scheduler.min_lrs = [group["lr"] for group in lr_scheduler.optimizer.param_groups]
        if isinstance(lr_scheduler, GreedyLR):
            lr_scheduler.max_lrs = list(lr_scheduler.min_lrs)
    else:
        return
    is_default = args.lr_scheduler_type in ("linear", "constant") and not args.get_warmup_steps(max_steps)
    logger.log(
        logging.INFO if is_default else logging.WARNING,
        "L3RS is its own learning rate schedule: lr_scheduler_type='%s' and warmup are not applied; to scale its "
        "steps over time all the same, pass a scheduler, Trainer(optimizers=(optimizer, scheduler)).",
        SchedulerType(args.lr_scheduler_type).value,
    )


def _hold(step: int) -> float:
    return 1.0
