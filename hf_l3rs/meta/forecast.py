"""What a meta-training will take, by a few steps that are measured before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator

from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import MetaGradient
from hf_l3rs.meta.outer import OuterConfig
from hf_l3rs.meta.selection import run_seconds
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
        """Returns what a meta-training by gradient will take in one process; several share the time."""
        low, high = task_args.min_steps, task_args.longest_horizon
        steps = low if low == high else (high - low) / math.log(high / low)  # horizons are log-uniform
        generation = num_tasks * (steps * self.differentiated + self.evaluation)
        validation = task_args.num_validation_tasks * (steps * self.plain + self.evaluation)
        return run_seconds(generation, validation, num_generations, interval)


def measure_steps(
    tasks: TaskDistribution, network: L3RSNetwork, config: OuterConfig, accelerator: Accelerator
) -> StepCosts:
    """Measures inner steps of a run that is differentiated as settings say. The model's state is overwritten."""
    short, long = (tasks.with_horizon(Horizon(steps, steps)).draw(0, 0, 0) for steps in (_SHORT, _LONG))
    device, vector = accelerator.device, network.to_vector().detach()
    short.model.to(device)
    estimator = MetaGradient(config, tasks, network, accelerator)
    differentiate = partial(estimator.of_task, vector)
    fine_tune = partial(rollout, short.model, network, device=device)
    differentiate(short), fine_tune(short)  # the first time, much is set up that never is again
    differentiated, plain, sizes = [], [], []
    for task in (short, long):
        with _storages_of_graph() as held:
            differentiated.append(_seconds(partial(differentiate, task), device))
            sizes.append(sum(storage.nbytes() for storage in held.values()))
        plain.append(_seconds(partial(fine_tune, task), device))
    per_plain_step = _per_step(plain)
    return StepCosts(
        differentiated=_per_step(differentiated),
        plain=per_plain_step,
        evaluation=max(plain[0] - per_plain_step, 0.0),
        graph_bytes=sizes[0],
        step_bytes=max(sizes[1] - sizes[0], 0) // (_LONG - _SHORT),
    )


@contextmanager
def _storages_of_graph() -> Iterator[dict[int, torch.UntypedStorage]]:
    """Collects by address what a graph holds; a storage is kept so that no other gets its address."""
    held: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield held


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of a GPU, time by the clock; else of this process alone, whatever else the machine does meanwhile."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def _per_step(seconds: list[float]) -> float:
    return max((seconds[1] - seconds[0]) / (_LONG - _SHORT), 1e-6)
