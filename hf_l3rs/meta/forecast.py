"""What a meta-training will take, by a few steps that are measured before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator

from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import MetaGradient
from hf_l3rs.meta.outer import OuterConfig
from hf_l3rs.meta.selection import capped_interval
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution
from hf_l3rs.tasks.task_arguments import TaskArguments


# Runs of these lengths are measured; what a step more takes is their difference.
_SHORT, _LONG = 1, 3


class StepCosts(NamedTuple):
    """
    Seconds of an inner step that is differentiated, its share of the way back included, of a plain one and of an
    evaluation; bytes that the graph of a differentiated run of one step holds, and that every further step adds.
    """

    differentiated: float
    plain: float
    evaluation: float
    graph_bytes: int
    step_bytes: int

    def seconds(self, task_args: TaskArguments, num_generations: int, num_tasks: int, interval: int) -> float:
        """Returns what a meta-training by gradient will take in one process, the first validation included."""
        low, high = task_args.min_steps, task_args.longest_horizon
        steps = low if low == high else (high - low) / math.log(high / low)  # horizons are log-uniform
        generation = num_tasks * (steps * self.differentiated + self.evaluation)
        validation = task_args.num_validation_tasks * (steps * self.plain + self.evaluation)
        capped = capped_interval(interval, num_generations)
        num_validations = 1 + math.ceil(num_generations / capped) if capped else 0
        return num_generations * generation + num_validations * validation


def measure_steps(
    tasks: TaskDistribution, network: L3RSNetwork, config: OuterConfig, accelerator: Accelerator
) -> StepCosts:
    """Measures inner steps of a run that is differentiated as settings say. The model's state is overwritten."""
    short, long = (tasks.with_horizon(Horizon(steps, steps)).draw(0, 0, 0) for steps in (_SHORT, _LONG))
    device = accelerator.device
    short.model.to(device)
    differentiate = partial(MetaGradient(config, tasks, network, accelerator).of_task, network.to_vector().detach())
    fine_tune = partial(rollout, short.model, network, device=device)
    differentiate(short), fine_tune(short)  # the first time, much is set up that never is again
    graphs = [_measured(partial(differentiate, task), device, count_bytes=True) for task in (short, long)]
    plain = [_measured(partial(fine_tune, task), device)[0] for task in (short, long)]
    differentiated_step, plain_step = (
        max((second - first) / (_LONG - _SHORT), 1e-6) for first, second in ([each[0] for each in graphs], plain)
    )
    return StepCosts(
        differentiated=differentiated_step,
        plain=plain_step,
        evaluation=max(plain[0] - plain_step, 0.0),
        graph_bytes=graphs[0][1],
        step_bytes=max(graphs[1][1] - graphs[0][1], 0) // (_LONG - _SHORT),
    )


def _measured(work: Callable[[], object], device: torch.device, count_bytes: bool = False) -> tuple[float, int]:
    """Returns seconds, on a CPU those of this process alone, and the bytes of all storages that the graph held."""
    held: dict[int, torch.UntypedStorage] = {}  # kept, so that no other gets the address of one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage
        return tensor

    clock = time.process_time if device.type == "cpu" else time.perf_counter
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks if count_bytes else nullcontext():
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start, sum(storage.nbytes() for storage in held.values())
