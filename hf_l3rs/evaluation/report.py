"""What a benchmark's rows say: summary tables, Markdown, and the entries of a model card."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hf_l3rs.evaluation.benchmark import Row
from hf_l3rs.hub.results import Result


@dataclass(frozen=True)
class Summary:
    """
    An optimizer at the end of runs of one length, over tasks.

    Args:
        optimizer (`str`): Name of the contender.
        num_training_steps (`int`): Length of the runs.
        learning_rate (`float`, *optional*): The one it ran with.
        num_tasks (`int`): Tasks that the means are over.
        loss (`float`): Mean final evaluation loss, in nats.
        loss_stderr (`float`): Its standard error over tasks.
        accuracy (`float`): Mean final accuracy.
        accuracy_stderr (`float`): Its standard error over tasks.
        wins (`int`): Tasks on which the loss is lower than the reference's.
        ratio (`float`): Mean loss over the reference's mean loss.
    """

    optimizer: str
    num_training_steps: int
    learning_rate: float | None
    num_tasks: int
    loss: float
    loss_stderr: float
    accuracy: float
    accuracy_stderr: float
    wins: int = 0
    ratio: float = math.nan


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error; 0 for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def final_losses(rows: Iterable[Row]) -> dict[int, dict[str, dict[int, Row]]]:
    """Returns the final rows by horizon, optimizer and task."""
    table: dict[int, dict[str, dict[int, Row]]] = {}
    for row in rows:
        if row.is_final:
            table.setdefault(row.num_training_steps, {}).setdefault(row.optimizer, {})[row.task] = row
    return table


def best_baseline(rows: Iterable[Row], horizon: int, baselines: Sequence[str]) -> str:
    """Returns the baseline with the lowest mean loss on the very tasks of the comparison: the hardest reference."""
    by_optimizer = final_losses(rows)[horizon]
    return min(
        (name for name in baselines if name in by_optimizer),
        key=lambda name: mean_and_stderr([row.loss for row in by_optimizer[name].values()])[0],
    )


def summarise(rows: Sequence[Row], baselines: Sequence[str]) -> list[Summary]:
    """
    Summarises final losses and accuracies, with the best baseline of each horizon as the reference.

    Args:
        rows (`Sequence[Row]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers.

    Returns:
        `list[Summary]`: By horizon, then in the order of the rows.
    """
    summaries = []
    for horizon, by_optimizer in sorted(final_losses(rows).items()):
        reference = by_optimizer[best_baseline(rows, horizon, baselines)]
        reference_loss = mean_and_stderr([row.loss for row in reference.values()])[0]
        for name, by_task in by_optimizer.items():
            loss, loss_stderr = mean_and_stderr([row.loss for row in by_task.values()])
            accuracy, accuracy_stderr = mean_and_stderr([row.accuracy for row in by_task.values()])
            summaries.append(
                Summary(
                    optimizer=name,
                    num_training_steps=horizon,
                    learning_rate=next(iter(by_task.values())).learning_rate,
                    num_tasks=len(by_task),
                    loss=loss,
                    loss_stderr=loss_stderr,
                    accuracy=accuracy,
                    accuracy_stderr=accuracy_stderr,
                    wins=sum(row.loss < reference[task].loss for task, row in by_task.items()),
                    ratio=loss / reference_loss,
                )
            )
    return summaries


def steps_to_reach(
    summaries: Iterable[Summary], optimizer: str, *, loss: float = math.inf, accuracy: float = 0.0
) -> int | None:
    """Returns the shortest run after which an optimizer's mean loss and accuracy reach the targets, if any does."""
    lengths = [
        summary.num_training_steps
        for summary in summaries
        if summary.optimizer == optimizer and summary.loss <= loss and summary.accuracy >= accuracy
    ]
    return min(lengths, default=None)


def steps_of_baselines(summaries: Sequence[Summary], baselines: Sequence[str], loss: float) -> float | None:
    """
    Returns how many steps the best baseline needs for a mean loss, each length of run tuned for itself.

    Between the measured lengths it is interpolated, log loss over log steps; `None` if it lies outside of them.
    """
    points: dict[int, float] = {}
    for summary in summaries:
        if summary.optimizer in baselines:
            steps = summary.num_training_steps
            points[steps] = min(summary.loss, points.get(steps, math.inf))
    for (few, worse), (many, better) in itertools.pairwise(sorted(points.items())):
        if better <= loss <= worse and better < worse:
            share = math.log(worse / loss) / math.log(worse / better)
            return few * (many / few) ** share
    return None


def runs_to_pay_back(inner_steps: int, num_training_steps: int, baseline_steps: float | None) -> int | None:
    """Returns after how many fine-tuning runs meta-training has saved the steps that it took, if it saves any."""
    if baseline_steps is None or baseline_steps <= num_training_steps:
        return None
    return math.ceil(inner_steps / (baseline_steps - num_training_steps))


def to_markdown(summaries: Sequence[Summary], baselines: Sequence[str]) -> str:
    """Returns a table with a line for each horizon and optimizer; the reference of each horizon is marked."""
    lines = [
        "| steps | optimizer | learning rate | loss | accuracy | loss / best baseline | wins |",
        "|--:|:--|--:|--:|--:|--:|--:|",
    ]
    for summary in summaries:
        is_reference = summary.optimizer in baselines and summary.ratio == 1.0
        name = f"{summary.optimizer} (best baseline)" if is_reference else summary.optimizer
        rate = "none" if summary.learning_rate is None else f"{summary.learning_rate:g}"
        wins = "" if is_reference else f"{summary.wins} of {summary.num_tasks}"
        lines.append(
            f"| {summary.num_training_steps} | {name} | {rate} | {summary.loss:.3f} ± {summary.loss_stderr:.3f} "
            f"| {100 * summary.accuracy:.1f} ± {100 * summary.accuracy_stderr:.1f} % | {summary.ratio:.2f} | {wins} |"
        )
    return "\n".join(lines)


def to_results(
    summaries: Sequence[Summary], baselines: Sequence[str], *, dataset: str, split: str, setting: str, command: str
) -> list[Result]:
    """
    Turns the summaries into entries of a model card: every optimizer against the best baseline of its horizon.

    Args:
        summaries (`Sequence[Summary]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers.
        dataset (`str`): What was evaluated on.
        split (`str`): Split of the evaluation sets.
        setting (`str`): How the tasks relate to meta-training, such as `"in domain"`.
        command (`str`): What measures it again.

    Returns:
        `list[Result]`: For every optimizer that is not a baseline.
    """
    results = []
    for summary in summaries:
        if summary.optimizer in baselines:
            continue
        reference = min(
            (s for s in summaries if s.num_training_steps == summary.num_training_steps and s.optimizer in baselines),
            key=lambda s: s.loss,
        )
        needed = steps_of_baselines(summaries, baselines, summary.loss)
        results.append(
            Result(
                optimizer=summary.optimizer,
                dataset=dataset,
                split=split,
                num_training_steps=summary.num_training_steps,
                num_tasks=summary.num_tasks,
                loss=summary.loss,
                loss_stderr=summary.loss_stderr,
                accuracy=summary.accuracy,
                accuracy_stderr=summary.accuracy_stderr,
                setting=setting,
                baseline=f"{reference.optimizer}, tuned",
                baseline_loss=reference.loss,
                baseline_accuracy=reference.accuracy,
                wins=summary.wins,
                step_ratio=None if needed is None else round(needed / summary.num_training_steps, 2),
                command=command,
            )
        )
    return results
