"""Optimizers x tasks x horizons, paired: every optimizer sees the same tasks, initial weights and batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from hf_l3rs.distributed import on_main_process, share_out
from hf_l3rs.evaluation.baselines import Baseline, Contender
from hf_l3rs.evaluation.rivals import with_probe
from hf_l3rs.evaluation.store import Row, RowStore, Run, RunKey, final_rows, ranked
from hf_l3rs.tasks.distribution import Horizon, Task, TaskDistribution
from hf_l3rs.tasks.inner_loop import Evaluation, evaluate, run as run_inner_loop


logger = logging.getLogger(__name__)

Device = torch.device | str

DIVERGED = Evaluation(math.inf, 0.0)


def draw_task(tasks: TaskDistribution, seed: int, index: int, num_training_steps: int) -> Task:
    """Returns the benchmark's task of this index, with a horizon of `num_training_steps`."""
    return tasks.with_horizon(Horizon(num_training_steps, num_training_steps)).draw(seed, 0, index)


def run_one(
    model: nn.Module,
    tasks: TaskDistribution,
    seed: int,
    run: Run,
    evaluate_every: int | None = None,
    device: Device = "cpu",
) -> list[Row]:
    """Returns a row for each evaluation of a run; of a contender that takes no step, for the end alone."""
    length = run.num_training_steps
    task = draw_task(tasks, seed, run.task, length)
    steps = range(0, length, evaluate_every) if evaluate_every and run.contender.build is not None else ()
    evaluations = measure(model, run.contender, task, steps, device)
    return [Row(*run.key, step, *evaluation) for step, evaluation in evaluations.items()]


def measure(
    model: nn.Module, contender: Contender, task: Task, evaluate_at: Collection[int] = (), device: Device = "cpu"
) -> dict[int, Evaluation]:
    """
    Fine-tunes a model, whose state is overwritten. Returns evaluations after the steps `evaluate_at` and at the end:
    from where the run diverged on, and where the loss is not a number, `DIVERGED`.
    """
    length = task.num_training_steps
    if contender.starts_at_probe:
        task = with_probe(model, task, device)
    model.load_state_dict(dict(task.initial_state))  # before the optimizer is made: some copy the weights then
    if contender.build is None:
        evaluations = {length: evaluate(model, task.evaluation, device=device)}
    else:
        optimizer, scheduler = contender.build(model, length)
        norm = contender.max_grad_norm
        learner = contender.learner(model, optimizer, scheduler=scheduler, device=device, max_grad_norm=norm)
        trajectory = run_inner_loop(learner, task, evaluate_at=evaluate_at)
        end = trajectory.num_steps if trajectory.diverged else math.inf
        evaluations = {step: each for step, each in trajectory.evaluations.items() if step < end}
    measured = {step: each for step, each in evaluations.items() if math.isfinite(each.loss)}
    return {step: measured.get(step, DIVERGED) for step in (*evaluate_at, length)}


def search_runs(baselines: Iterable[Baseline], num_tasks: int, horizons: Iterable[int]) -> list[Run]:
    """Returns the runs of a full search: every learning rate, at every horizon, of every baseline that is tuned."""
    return [
        Run(baseline.at(rate), task, horizon)
        for horizon in horizons
        for baseline in baselines
        if not baseline.is_tuning_free
        for rate in baseline.learning_rates
        for task in range(num_tasks)
    ]


def best_rates(rows: Iterable[Row]) -> dict[str, dict[int, float]]:
    """Chooses the learning rate of each baseline and length of run, from the rows of [`search_runs`]."""
    finals = final_rows(rows).dropna(subset="learning_rate")
    table = ranked(finals, ("optimizer", "num_training_steps", "learning_rate"))
    best: dict[str, dict[int, float]] = {}
    for name, horizon, rate in zip(table.optimizer, table.num_training_steps.tolist(), table.learning_rate.tolist()):
        best.setdefault(name, {}).setdefault(horizon, rate)
    return best


def comparison_runs(
    baselines: Sequence[Baseline],
    rates: Mapping[str, Mapping[int, float]],
    contenders: Sequence[Contender],
    num_tasks: int,
    horizons: Iterable[int],
) -> list[Run]:
    """Returns the runs of baselines, each at the rate that its search found or its only one, and of contenders."""

    def rate_of(baseline: Baseline, horizon: int) -> float | None:
        if baseline.is_tuning_free:
            return next(iter(baseline.learning_rates), None)
        return rates[baseline.name][horizon]

    return [
        Run(contender, task, horizon)
        for horizon in horizons
        for contender in (*(baseline.at(rate_of(baseline, horizon)) for baseline in baselines), *contenders)
        for task in range(num_tasks)
    ]


def run_all(
    accelerator: Accelerator,
    model: nn.Module,
    tasks: TaskDistribution,
    seed: int,
    runs: Sequence[Run],
    store: RowStore,
    title: str,
    evaluate_every: int | None = None,
) -> list[Row]:
    """
    Carries out runs, shared out over processes, on a model whose state is overwritten. Rows are on disk as soon as
    their run is finished: after an interruption of any kind the same call goes on from there, to the same rows.
    Returns them on every process, in the order of the runs.
    """
    by_run: dict[RunKey, list[Row]] = {}
    for row in on_main_process(accelerator, lambda: store.open(runs)):
        by_run.setdefault(row.run, []).append(row)
    missing = [run for run in runs if run.key not in by_run]
    if len(missing) < len(runs):
        logger.info("%s: %d of %d runs are in %s already.", title, len(runs) - len(missing), len(runs), store.file)

    def execute(run: Run) -> list[Row]:
        rows = run_one(model, tasks, seed, run, evaluate_every, accelerator.device)
        store.append(rows)
        return rows

    try:
        outcomes = share_out(accelerator, missing, execute, title)
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            logger.warning("Interrupted: finished runs are kept, and the same command goes on from there.")
        raise
    by_run.update((run.key, rows) for run, rows in zip(missing, outcomes))
    rows = [row for run in runs for row in by_run[run.key]]
    on_main_process(accelerator, lambda: store.close(rows))
    return rows
