"""
Several L3RS to go on from (ours). What short meta-training gives depends on the order of its tasks, so that a few
short runs, and the best of them on validation tasks, are worth more than one that took as long.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from accelerate import Accelerator

from hf_l3rs.errors import ConfigError, MetaTrainingError
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.checkpoint import NO_COST
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.scorer import Scorer
from hf_l3rs.tasks.task import Task


logger = logging.getLogger(__name__)


def choose_start(starts: Mapping[str, L3RSNetwork], tasks: Sequence[Task], accelerator: Accelerator) -> L3RSNetwork:
    """
    Returns the L3RS with the least mean final loss on some tasks. Its summary of meta-training has the cost of all.

    Args:
        starts (`Mapping[str, L3RSNetwork]`): L3RS for the tasks' model, by name; of equal ones the first is taken.
        tasks (`Sequence[Task]`): What they are chosen by: validation tasks.
        accelerator (`Accelerator`): Names device and precision, and shares the tasks out.

    Raises:
        ConfigError: If there are no tasks to choose by.
        MetaTrainingError: If every one of them diverged on a task.
    """
    if not tasks:
        raise ConfigError(
            "Of several initial L3RS the best on validation tasks is gone on from, but num_validation_tasks is 0; "
            "raise it, or leave out more_initial_l3rs."
        )
    for model in dict.fromkeys(task.model for task in tasks):
        model.to(accelerator.device)
    processes = Processes(accelerator)
    losses = {
        name: Scorer(network.config, MetaLoss(), accelerator).mean_loss(network.to_vector(), tasks, processes)
        for name, network in starts.items()
    }
    best = min(losses, key=lambda name: losses[name])
    if losses[best] == math.inf:
        raise MetaTrainingError(f"None of the initial L3RS can be gone on from: {', '.join(losses)} all diverged.")
    if accelerator.is_main_process:
        told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        logger.info("Meta-training goes on from %s, the best on %d validation tasks: %s.", best, len(tasks), told)
    return _at_the_cost_of_all(starts[best], list(starts.values()))


def _at_the_cost_of_all(chosen: L3RSNetwork, starts: Sequence[L3RSNetwork]) -> L3RSNetwork:
    summaries = [network.config.meta_training for network in starts]
    costs = {name: sum(summary.get(name, 0) for summary in summaries) for name in NO_COST}
    summary = {**chosen.config.meta_training, **costs, "chosen_from": len(starts)}
    chosen.config = chosen.config.replace(meta_training=summary)
    return chosen
