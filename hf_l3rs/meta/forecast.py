"""What a meta-training will take, by a few steps that are measured before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.gradient import GradientConfig, MetaGradient
from hf_l3rs.meta.selection import capped_interval
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution
from hf_l3rs.tasks.task_arguments import TaskArguments


# Runs of these lengths are measured; what a step more takes is their difference.
_SHORT, _LONG = 1, 3


class StepCosts(NamedTuple):
    """
    What was measured.

    Args:
        differentiated (`float`): Seconds of an inner step that is differentiated, its share of the way back included.
        plain (`float`): Seconds of an inner step that is not.
        evaluation (`float`): Seconds of an evaluation.
        graph_bytes (`int`): What the graph of a differentiated run of one step holds.
        step_bytes (`int`): What every further step adds to it.
    """

    differentiated: float
    plain: float
    evaluation: float
    graph_bytes: int
    step_bytes: int


class Forecast(NamedTuple):
    """What a run will take: seconds of a generation and of a validation, and how often the settings validate."""

    generation_seconds: float
    validation_seconds: float
    validation_interval: int

    def seconds(self, num_generations: int) -> float:
        """Returns the time of a run of so many generations, with a validation of the untrained L3RS before."""
        training = num_generations * self.generation_seconds
        if not self.validation_interval:
            return training
        interval = capped_interval(self.validation_interval, num_generations)
        return training + (1 + math.ceil(num_generations / interval)) * self.validation_seconds


def measure_steps(
    tasks: TaskDistribution, network: L3RSNetwork, gradient: GradientConfig, accelerator: Accelerator
) -> StepCosts:
    """Measures inner steps of a run that is differentiated as settings say. The model's state is overwritten."""
    short, long = (tasks.with_horizon(Horizon(steps, steps)).draw(0, 0, 0) for steps in (_SHORT, _LONG))
    device = accelerator.device
    short.model.to(device)
    estimator = MetaGradient(gradient, 0, tasks, network, accelerator)
    vector = network.to_vector().detach()
    estimator.of_task(vector, short)  # the first time, much is set up that never is again
    rollout(short.model, network, short, device=device)
    with _counted() as small:
        first = _seconds(lambda: estimator.of_task(vector, short), device)
    with _counted() as large:
        further = _seconds(lambda: estimator.of_task(vector, long), device) - first
    once = _seconds(lambda: rollout(short.model, network, short, device=device), device)
    plain = _per_step(_seconds(lambda: rollout(long.model, network, long, device=device), device) - once)
    sizes = sum(small.values()), sum(large.values())
    return StepCosts(
        differentiated=_per_step(further),
        plain=plain,
        evaluation=max(once - plain, 0.0),
        graph_bytes=sizes[0],
        step_bytes=max(sizes[1] - sizes[0], 0) // (_LONG - _SHORT),
    )


def forecast(costs: StepCosts, task_args: TaskArguments, num_tasks: int, validation_interval: int) -> Forecast:
    """Returns what a meta-training by gradient will take in one process, by its settings; several share the time."""
    steps = mean_steps(task_args)
    validation = task_args.num_validation_tasks * (steps * costs.plain + costs.evaluation)
    return Forecast(
        generation_seconds=num_tasks * (steps * costs.differentiated + costs.evaluation),
        validation_seconds=validation,
        validation_interval=validation_interval,
    )


def mean_steps(task_args: TaskArguments) -> float:
    """Returns the mean of the horizons, which are log-uniform."""
    low, high = task_args.min_steps, task_args.longest_horizon
    return float(low) if low == high else (high - low) / math.log(high / low)


@contextmanager
def _counted() -> Iterator[dict[int, int]]:
    """Counts the bytes of all storages that a graph holds, each once."""
    sizes: dict[int, int] = {}
    held: list[Any] = []  # an address is told from others as long as what is there is kept

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.append(storage)
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of a GPU, time by the clock; else of this process alone, whatever else the machine does meanwhile."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def _per_step(seconds: float) -> float:
    return max(seconds / (_LONG - _SHORT), 1e-6)
