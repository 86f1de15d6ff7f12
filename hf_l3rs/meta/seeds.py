"""
The best of several seeds (ours). What short meta-training gives depends on the order of its tasks, so that a few short
runs, and the best of them on validation tasks, may be worth more than one that took as long.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator

from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.checkpoint import NO_COST
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.scorer import Scorer
from hf_l3rs.meta.summary import with_earlier_cost
from hf_l3rs.tasks.task import Task


logger = logging.getLogger(__name__)


def choose_best(networks: Mapping[str, L3RSNetwork], tasks: Sequence[Task], accelerator: Accelerator) -> str:
    """
    Returns the name of the L3RS with the least mean final loss on some tasks.

    Args:
        networks (`Mapping[str, L3RSNetwork]`): L3RS for the tasks' model, by name; of equal ones the first is taken.
        tasks (`Sequence[Task]`): What they are chosen by: validation tasks.
        accelerator (`Accelerator`): Names device and precision, and shares the tasks out.

    Raises:
        NothingToKeepError: If every one of them diverged on a task.
    """
    for model in dict.fromkeys(task.model for task in tasks):
        model.to(accelerator.device)
    processes = Processes(accelerator)
    losses = {
        name: Scorer(network.config, MetaLoss(), accelerator).mean_loss(network.to_vector(), tasks, processes)
        for name, network in networks.items()
    }
    best = min(losses, key=lambda name: losses[name])
    if losses[best] == math.inf:
        raise NothingToKeepError(
            f"No L3RS is worth keeping: {', '.join(losses)} all diverged on a validation task; lower learning_rate or "
            "base_step, and start anew in another output_dir."
        )
    if accelerator.is_main_process:
        told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        logger.info("Of %d runs %s is kept, the best on %d validation tasks: %s.", len(losses), best, len(tasks), told)
    return best


def summary_of_choice(summaries: Mapping[str, dict[str, Any]], chosen: str) -> dict[str, Any]:
    """
    Returns the summary of the meta-training that was chosen, at the cost of all, and with their number as
    `chosen_from`. What an L3RS cost that all of them started from is counted once.

    Args:
        summaries (`Mapping[str, dict]`): Of all runs, also of those that gave nothing, by name.
        chosen (`str`): The one that is kept.
    """
    summary = summaries[chosen]
    if len(summaries) == 1:
        return summary
    start = with_earlier_cost(NO_COST, summary.get("started_from", {}))  # which each has in its cost
    costs = {
        name: sum(each.get(name, 0) for each in summaries.values()) - (len(summaries) - 1) * start[name]
        for name in NO_COST
    }
    return {**summary, **costs, "chosen_from": len(summaries)}
