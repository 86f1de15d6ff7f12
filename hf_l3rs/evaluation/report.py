"""What a benchmark's rows say: summary tables, Markdown, and the entries of a model card."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from pandas.api.typing import SeriesGroupBy

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.results import Row, final_rows, ranked
from hf_l3rs.hub.results import Result
from hf_l3rs.markdown import markdown_table


@dataclass(frozen=True)
class Summary:
    """
    An optimizer at the end of runs of one length, over tasks.

    Args:
        optimizer (`str`): Name of the contender.
        num_training_steps (`int`): Length of the runs.
        learning_rate (`float`, *optional*): The one it ran with.
        num_tasks (`int`): Tasks that the means are over.
        num_diverged (`int`): Tasks on which the run diverged; its loss is infinite, its accuracy 0, and both count.
        loss (`float`): Mean final evaluation loss, in nats; infinite if a run diverged.
        loss_stderr (`float`): Its standard error over tasks; infinite if a run diverged.
        loss_median (`float`): Median of the final evaluation loss, in nats.
        accuracy (`float`): Mean final accuracy.
        accuracy_stderr (`float`): Its standard error over tasks.
        wins (`int`): Tasks on which the loss is lower than the reference's.
        ratio (`float`): Mean loss over the reference's mean loss; NaN if the reference's is infinite.
        reference (`str`): The best baseline for runs of this length.
    """

    optimizer: str
    num_training_steps: int
    learning_rate: float | None
    num_tasks: int
    num_diverged: int
    loss: float
    loss_stderr: float
    loss_median: float
    accuracy: float
    accuracy_stderr: float
    wins: int
    ratio: float
    reference: str

    @property
    def is_reference(self) -> bool:
        """Whether this is the best baseline itself."""
        return self.optimizer == self.reference


def mean_and_stderr(values: SeriesGroupBy) -> pd.DataFrame:
    """
    Returns means and their standard errors.

    Args:
        values (`pandas.api.typing.SeriesGroupBy`): A column of a table in groups.

    Returns:
        `pandas.DataFrame`: A row for each group, with the columns `mean` and `stderr`. The error is 0 for a single
        value, and infinite where the mean is.
    """
    table = values.agg(["mean", "sem"]).rename(columns={"sem": "stderr"})
    table["stderr"] = table["stderr"].fillna(0.0).where(table["mean"] < math.inf, math.inf)
    return table


def best_baseline(rows: Iterable[Row], horizon: int, baselines: Sequence[str]) -> str:
    """
    Returns the hardest reference: the baseline with the lowest mean loss on the very tasks of the comparison, among
    those with the fewest diverged runs.

    Raises:
        DataError: If there is no baseline's row.
    """
    finals = final_rows(rows)
    return _best_baseline(finals[finals.num_training_steps == horizon], baselines)


def _best_baseline(finals: pd.DataFrame, baselines: Sequence[str]) -> str:
    table = ranked(finals[finals.optimizer.isin(list(baselines))], ["optimizer"])
    if table.empty:
        raise DataError(
            f"The rows hold no run of a baseline ({', '.join(baselines) or 'none is named'}) to compare with; measure "
            "at least one."
        )
    return table.optimizer.iloc[0]


def summarise(rows: Iterable[Row], baselines: Sequence[str]) -> list[Summary]:
    """
    Summarises final losses and accuracies, with the best baseline of each horizon as the reference.

    Args:
        rows (`Iterable[Row]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers.

    Returns:
        `list[Summary]`: By horizon, then in the order of the rows.

    Raises:
        DataError: If a run is there twice, or no baseline is.
    """
    finals = final_rows(rows)
    repeated = finals[finals.duplicated(["optimizer", "task", "num_training_steps"])]
    if len(repeated):
        raise DataError(
            f"The rows hold {repeated.optimizer.iloc[0]} on task {repeated.task.iloc[0]} for "
            f"{repeated.num_training_steps.iloc[0]} steps twice; keep one of each run."
        )
    return [
        summary
        for horizon, of_horizon in finals.groupby("num_training_steps")
        for summary in _summarise_horizon(int(horizon), of_horizon, _best_baseline(of_horizon, baselines))
    ]


def _summarise_horizon(horizon: int, finals: pd.DataFrame, reference: str) -> list[Summary]:
    groups = finals.groupby("optimizer", sort=False)
    losses, accuracies = mean_and_stderr(groups.loss), mean_and_stderr(groups.accuracy)
    by_task = finals.pivot(index="task", columns="optimizer", values="loss")
    wins = by_task.lt(by_task[reference], axis=0).sum()
    reference_loss = losses.loc[reference, "mean"]
    return [
        Summary(
            optimizer=name,
            num_training_steps=horizon,
            learning_rate=None if math.isnan(rate := of_optimizer.learning_rate.iloc[0]) else float(rate),
            num_tasks=len(of_optimizer),
            num_diverged=int((of_optimizer.loss == math.inf).sum()),
            loss=float(losses.loc[name, "mean"]),
            loss_stderr=float(losses.loc[name, "stderr"]),
            loss_median=float(of_optimizer.loss.median()),
            accuracy=float(accuracies.loc[name, "mean"]),
            accuracy_stderr=float(accuracies.loc[name, "stderr"]),
            wins=int(wins[name]),
            ratio=float(losses.loc[name, "mean"] / reference_loss) if reference_loss < math.inf else math.nan,
            reference=reference,
        )
        for name, of_optimizer in groups
    ]


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
        if summary.optimizer in baselines and not summary.num_diverged:
            steps = summary.num_training_steps
            points[steps] = min(summary.loss, points.get(steps, math.inf))
    for (few, worse), (many, better) in itertools.pairwise(sorted(points.items())):
        if 0 < better <= loss <= worse and better < worse:
            share = math.log(worse / loss) / math.log(worse / better)
            return few * (many / few) ** share
    return None


def runs_to_pay_back(inner_steps: int, num_training_steps: int, baseline_steps: float | None) -> int | None:
    """Returns after how many fine-tuning runs meta-training has saved the steps that it took, if it saves any."""
    if baseline_steps is None or baseline_steps <= num_training_steps:
        return None
    return math.ceil(inner_steps / (baseline_steps - num_training_steps))


def to_markdown(summaries: Iterable[Summary]) -> str:
    """Returns a table with a line for each horizon and optimizer; the reference of each horizon is marked."""
    headers = ("steps", "optimizer", "learning rate", "loss", "accuracy", "loss / best baseline", "wins")
    alignments = ("right", "left", *["right"] * 5)
    return markdown_table(headers, map(_cells, summaries), alignments)


def _cells(summary: Summary) -> tuple[str, ...]:
    loss = f"{summary.loss:.3f} ± {summary.loss_stderr:.3f}"
    if summary.num_diverged:
        loss = f"diverged on {summary.num_diverged} of {summary.num_tasks}, median {summary.loss_median:.3f}"
    return (
        str(summary.num_training_steps),
        f"{summary.optimizer} (best baseline)" if summary.is_reference else summary.optimizer,
        "none" if summary.learning_rate is None else f"{summary.learning_rate:g}",
        loss,
        f"{100 * summary.accuracy:.1f} ± {100 * summary.accuracy_stderr:.1f} %",
        f"{summary.ratio:.2f}" if math.isfinite(summary.ratio) else "–",
        "" if summary.is_reference else f"{summary.wins} of {summary.num_tasks}",
    )


def describe_savings(
    summaries: Sequence[Summary], baselines: Sequence[str], inner_steps: int | None, optimizer: str = "L3RS"
) -> str:
    """
    Says, one line for each length of run, how many steps an L3RS saves and when its meta-training is paid back.

    Args:
        summaries (`Sequence[Summary]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers.
        inner_steps (`int`, *optional*): Steps that meta-training took.
        optimizer (`str`, *optional*, defaults to `"L3RS"`): Whose savings.
    """
    lines = []
    for summary in summaries:
        if summary.optimizer != optimizer:
            continue
        if summary.num_diverged:
            lines.append(
                f"- {optimizer} diverged on {summary.num_diverged} of {summary.num_tasks} tasks in runs of "
                f"{summary.num_training_steps} steps."
            )
            continue
        needed = steps_of_baselines(summaries, baselines, summary.loss)
        line = f"- After {summary.num_training_steps} steps {optimizer} is where the best tuned baseline is after "
        line += "a number of steps that was not measured" if needed is None else f"{needed:.0f}"
        runs = runs_to_pay_back(inner_steps, summary.num_training_steps, needed) if inner_steps else None
        lines.append(
            f"{line}; the {inner_steps} steps of meta-training are saved after {runs} runs." if runs else f"{line}."
        )
    return "\n".join(lines)


def to_results(
    summaries: Sequence[Summary],
    baselines: Sequence[str],
    *,
    dataset: str,
    split: str,
    setting: str,
    command: str,
    hub_id: str | None = None,
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
        hub_id (`str`, *optional*): Id of the data set on the Hub, if it is there.

    Returns:
        `list[Result]`: For every optimizer that is not a baseline.
    """
    references = {summary.num_training_steps: summary for summary in summaries if summary.is_reference}
    results = []
    for summary in summaries:
        if summary.optimizer in baselines:
            continue
        reference = references[summary.num_training_steps]
        needed = steps_of_baselines(summaries, baselines, summary.loss)
        results.append(
            Result(
                optimizer=summary.optimizer,
                dataset=dataset,
                hub_id=hub_id,
                split=split,
                num_training_steps=summary.num_training_steps,
                num_tasks=summary.num_tasks,
                loss=summary.loss,
                loss_stderr=None if summary.num_diverged else summary.loss_stderr,
                accuracy=summary.accuracy,
                accuracy_stderr=summary.accuracy_stderr,
                setting=setting,
                baseline=f"{reference.optimizer}, tuned",
                baseline_loss=reference.loss,
                baseline_accuracy=reference.accuracy,
                wins=summary.wins,
                step_ratio=None if needed is None else round(needed / summary.num_training_steps, 2),
                command=command,
                num_diverged=summary.num_diverged or None,
            )
        )
    return results
