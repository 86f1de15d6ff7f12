"""
The best of several seeds (ours). What short meta-training gives depends on the order of its tasks, so that a few short
runs, and the best of them on validation tasks, may be worth more than one that took as long.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from accelerate import Accelerator

from hf_l3rs.errors import MetaTrainingError
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.checkpoint import NO_COST
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.scorer import Scorer
from hf_l3rs.tasks.task import Task


logger = logging.getLogger(__name__)


def choose_best(networks: Mapping[str, L3RSNetwork], tasks: Sequence[Task], accelerator: Accelerator) -> L3RSNetwork:
    """
    Returns the L3RS with the least mean final loss on some tasks. Its summary of meta-training has the cost of all.

    Args:
        networks (`Mapping[str, L3RSNetwork]`): L3RS for the tasks' model, by name; of equal ones the first is taken.
        tasks (`Sequence[Task]`): What they are chosen by: validation tasks.
        accelerator (`Accelerator`): Names device and precision, and shares the tasks out.

    Raises:
        MetaTrainingError: If every one of them diverged on a task.
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
        raise MetaTrainingError(f"No L3RS is worth keeping: {', '.join(losses)} all diverged on a validation task.")
    if accelerator.is_main_process:
        told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        logger.info("Of %d runs %s is kept, the best on %d validation tasks: %s.", len(losses), best, len(tasks), told)
    return _at_the_cost_of_all(networks[best], list(networks.values()))


def _at_the_cost_of_all(chosen: L3RSNetwork, networks: Sequence[L3RSNetwork]) -> L3RSNetwork:
    summaries = [network.config.meta_training for network in networks]
    costs = {name: sum(summary.get(name, 0) for summary in summaries) for name in NO_COST}
    summary = {**chosen.config.meta_training, **costs, "chosen_from": len(networks)}
    chosen.config = chosen.config.replace(meta_training=summary)
    return chosen
