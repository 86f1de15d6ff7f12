"""What meta-training is compared with while it runs: a tuned Adam, and how far these images could go at all."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator

from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.benchmark import tuned_losses
from hf_l3rs.evaluation.data_limit import DATA_LIMIT, DATA_LIMITS
from hf_l3rs.tasks.distribution import Task


def reference_losses(accelerator: Accelerator, tasks: Sequence[Task], data_limit: bool = False) -> dict[str, float]:
    """
    Measures what an L3RS is compared with on its validation tasks, each tuned on these very tasks.

    Args:
        accelerator (`Accelerator`): Shares the work out over processes.
        tasks (`Sequence[Task]`): Of any horizons; their models' states are overwritten.
        data_limit (`bool`, *optional*, defaults to `False`):
            Whether to measure the data limit, too, at 124 times the steps of one pass; Adam's rates take 11.

    Returns:
        `dict[str, float]`: Mean final losses: of `"Adam cosine"`, and of `"Data limit"`.
    """
    losses = tuned_losses(accelerator, tasks, [BASELINES["Adam cosine"]])
    if data_limit:
        losses[DATA_LIMIT] = min(tuned_losses(accelerator, tasks, list(DATA_LIMITS.values())).values())
    return losses
