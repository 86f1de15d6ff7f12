"""Optimizers x tasks x horizons, paired: every optimizer sees the same tasks, initial weights and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm.auto import tqdm

from hf_l3rs.evaluation.baselines import Baseline, Contender
from hf_l3rs.tasks.distribution import Horizon, TaskDistribution
from hf_l3rs.tasks.inner_loop import fine_tune
from hf_l3rs.tasks.task import Task


@dataclass(frozen=True)
class Row:
    """
    One evaluation of one run.

    Args:
        optimizer (`str`): Name of the contender.
        learning_rate (`float`, *optional*): The one it ran with.
        task (`int`): Index of the task; the same index is the same task for all contenders.
        num_training_steps (`int`): Planned length of the run.
        step (`int`): Steps taken at the evaluation.
        loss (`float`): Mean cross entropy on the evaluation set, in nats; infinite if the run diverged.
        accuracy (`float`): Share classified right; 0 if the run diverged.
    """

    optimizer: str
    learning_rate: float | None
    task: int
    num_training_steps: int
    step: int
    loss: float
    accuracy: float

    @property
    def is_final(self) -> bool:
        """Whether this is the end of its run."""
        return self.step == self.num_training_steps

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One run that a benchmark consists of: a contender on a task for a number of steps."""

    contender: Contender
    task: int
    num_training_steps: int


def draw_task(tasks: TaskDistribution, seed: int, index: int, num_training_steps: int) -> Task:
    """Returns the benchmark's task of this index, with a horizon of `num_training_steps`."""
    return tasks.with_horizon(Horizon(num_training_steps, num_training_steps)).draw(seed, 0, index)


def run_one(
    model: nn.Module,
    tasks: TaskDistribution,
    seed: int,
    run: Run,
    evaluate_every: int | None = None,
    device: torch.device | str = "cpu",
) -> list[Row]:
    """
    Carries out one run.

    Args:
        model (`nn.Module`): Its state is overwritten.
        tasks ([`TaskDistribution`]): Where the task is drawn from.
        seed (`int`): Of the tasks; meta-training's tasks have another seed, and other images.
        run ([`Run`]): What to run.
        evaluate_every (`int`, *optional*): Steps between evaluations; at the end only by default.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.

    Returns:
        `list[Row]`: One for each evaluation, the last for the end.
    """
    task = draw_task(tasks, seed, run.task, run.num_training_steps)
    optimizer, scheduler = run.contender.build(model, run.num_training_steps)
    steps = range(evaluate_every, run.num_training_steps, evaluate_every) if evaluate_every else ()
    trajectory = fine_tune(model, task, optimizer, scheduler=scheduler, evaluate_at=steps, device=device)
    name, rate = run.contender.name, run.contender.learning_rate
    rows = [
        Row(name, rate, run.task, run.num_training_steps, step, evaluation.loss, evaluation.accuracy)
        for step, evaluation in trajectory.evaluations.items()
    ]
    if trajectory.diverged:
        rows.append(Row(name, rate, run.task, run.num_training_steps, run.num_training_steps, math.inf, 0.0))
    return rows


def search_runs(baselines: Iterable[Baseline], num_tasks: int, horizons: Iterable[int]) -> list[Run]:
    """Returns the runs of a full learning-rate search: every rate of every baseline at every horizon."""
    return [
        Run(baseline.at(rate), task, horizon)
        for horizon in horizons
        for baseline in baselines
        for rate in baseline.learning_rates
        for task in range(num_tasks)
    ]


def best_rates(rows: Iterable[Row]) -> dict[str, dict[int, float]]:
    """
    Chooses learning rates by the mean final loss over tasks.

    Args:
        rows (`Iterable[Row]`): Of [`search_runs`].

    Returns:
        `dict[str, dict[int, float]]`: For each baseline and horizon the rate.
    """
    losses: dict[tuple[str, int], dict[float, list[float]]] = {}
    for row in rows:
        if row.is_final and row.learning_rate is not None:
            by_rate = losses.setdefault((row.optimizer, row.num_training_steps), {})
            by_rate.setdefault(row.learning_rate, []).append(row.loss)
    best: dict[str, dict[int, float]] = {}
    for (name, horizon), by_rate in losses.items():
        best.setdefault(name, {})[horizon] = min(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))
    return best


def comparison_runs(
    baselines: Sequence[Baseline],
    rates: dict[str, dict[int, float]],
    contenders: Sequence[Contender],
    num_tasks: int,
    horizons: Iterable[int],
) -> list[Run]:
    """Returns the runs of a comparison: tuned baselines, and contenders that need no tuning, on the same tasks."""
    return [
        Run(contender, task, horizon)
        for horizon in horizons
        for contender in (*(baseline.at(rates[baseline.name][horizon]) for baseline in baselines), *contenders)
        for task in range(num_tasks)
    ]


def run_all(
    accelerator: Accelerator,
    model: nn.Module,
    tasks: TaskDistribution,
    seed: int,
    runs: Sequence[Run],
    title: str,
    evaluate_every: int | None = None,
) -> list[Row]:
    """Carries out runs, shared out over processes, with a progress bar; every process returns all rows, in order."""
    rows = share_out(
        accelerator, runs, lambda run: run_one(model, tasks, seed, run, evaluate_every, accelerator.device), title
    )
    return [row for of_run in rows for row in of_run]


def tuned_losses(
    accelerator: Accelerator, model: nn.Module, tasks: Sequence[Task], baselines: Sequence[Baseline]
) -> dict[str, float]:
    """
    Tunes baselines on given tasks, and measures them on the same: in their favour, as a reference should be.

    Args:
        accelerator (`Accelerator`): Shares the work out over processes.
        model (`nn.Module`): Its state is overwritten.
        tasks (`Sequence[Task]`): Of any horizons.
        baselines (`Sequence[Baseline]`): What to tune.

    Returns:
        `dict[str, float]`: For each baseline the mean final loss at its best learning rate.
    """

    def final_loss(job: tuple[Contender, Task]) -> float:
        contender, task = job
        optimizer, scheduler = contender.build(model, task.num_training_steps)
        trajectory = fine_tune(model, task, optimizer, scheduler=scheduler, device=accelerator.device)
        return math.inf if trajectory.diverged else trajectory.evaluations[task.num_training_steps].loss

    jobs = [(baseline.at(rate), task) for baseline in baselines for rate in baseline.learning_rates for task in tasks]
    best: dict[str, float] = {}
    losses = iter(share_out(accelerator, jobs, final_loss, "tuning the reference"))
    for baseline in baselines:
        means = [sum(next(losses) for _ in tasks) / len(tasks) for _ in baseline.learning_rates]
        best[baseline.name] = min(means)
    return best


Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def share_out(
    accelerator: Accelerator, jobs: Sequence[Job], execute: Callable[[Job], Outcome], title: str
) -> list[Outcome]:
    """Executes each job on one process; every process returns all outcomes, in the order of the jobs."""
    mine = range(accelerator.process_index, len(jobs), accelerator.num_processes)
    bar = tqdm(mine, desc=title, unit="run", disable=not accelerator.is_main_process)
    outcomes = gather_object([(index, execute(jobs[index])) for index in bar])
    return [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]
