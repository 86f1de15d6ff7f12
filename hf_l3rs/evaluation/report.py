"""What a benchmark's rows say: summaries, and their table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd
from pandas.api.typing import SeriesGroupBy

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.baselines import is_tuning_free
from hf_l3rs.evaluation.data_limit import is_data_limit
from hf_l3rs.evaluation.rows import Row, final_rows, ranked
from hf_l3rs.evaluation.speed_up import SpeedUp, speed_ups
from hf_l3rs.hub.results import OPTIMIZER_NAME, describe_speed_up, gap_closed
from hf_l3rs.markdown import markdown_table, mean_with_stderr, percent_with_stderr


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
        loss_stderr (`float`, *optional*):
            Its standard error over tasks; infinite if a run diverged, `None` if there is a single task.
        loss_median (`float`): Median of the final evaluation loss, in nats.
        accuracy (`float`): Mean final accuracy.
        accuracy_stderr (`float`, *optional*): Its standard error over tasks; `None` if there is a single one.
        wins (`int`): Tasks on which the loss is lower than the reference's.
        reference (`str`): The best baseline for runs of this length.
        reference_loss (`float`): Its mean loss; infinite if a run diverged.
        data_limit_loss (`float`, *optional*):
            Mean loss of the data limit, of many passes over the batches of the run; `None` if it was not measured.
        losses_to_l3rs (`int`, *optional*):
            Tasks on which the loss is higher than L3RS's; `None` if that was not measured.
        speed_up ([`~hf_l3rs.evaluation.speed_up.SpeedUp`], *optional*):
            Steps of the best baseline for the same loss over its own; `None` for baselines, and if a run diverged.
    """

    optimizer: str
    num_training_steps: int
    learning_rate: float | None
    num_tasks: int
    num_diverged: int
    loss: float
    loss_stderr: float | None
    loss_median: float
    accuracy: float
    accuracy_stderr: float | None
    wins: int
    reference: str
    reference_loss: float
    data_limit_loss: float | None = None
    losses_to_l3rs: int | None = None
    speed_up: SpeedUp | None = None

    @property
    def is_reference(self) -> bool:
        """Whether this is the best baseline itself."""
        return self.optimizer == self.reference

    @property
    def is_data_limit(self) -> bool:
        """Whether this is the data limit, a line to refer to and no rival."""
        return is_data_limit(self.optimizer)

    @property
    def is_tuning_free(self) -> bool:
        """Whether this is a baseline that needs no tuning."""
        return is_tuning_free(self.optimizer)

    @property
    def ratio(self) -> float:
        """Mean loss over the reference's mean loss; NaN if the reference's is infinite or 0."""
        return self.loss / self.reference_loss if 0 < self.reference_loss < math.inf else math.nan

    @property
    def gap_closed(self) -> float | None:
        """How far the mean loss is on the way from the reference's, 0, to the data limit, 1, if that is known."""
        return gap_closed(self.loss, self.reference_loss, self.data_limit_loss)


def mean_and_stderr(values: SeriesGroupBy) -> pd.DataFrame:
    """
    Returns means and their standard errors.

    Args:
        values (`pandas.api.typing.SeriesGroupBy`): A column of a table in groups.

    Returns:
        `pandas.DataFrame`: A row for each group, with the columns `mean` and `stderr`. The error is NaN for a
        single value, and infinite where the mean is.
    """
    table = values.agg(["mean", "sem"]).rename(columns={"sem": "stderr"})
    table["stderr"] = table["stderr"].where(table["mean"] < math.inf, math.inf)
    return table


def rivals_in(rows: Iterable[Row]) -> list[str]:
    """Returns the baselines that rows hold: every optimizer but L3RS, also untrained, and the data limit."""
    names = dict.fromkeys(row.optimizer for row in rows)
    return [name for name in names if not is_data_limit(name) and name.split(",")[0] != OPTIMIZER_NAME]


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
    Summarises final losses and accuracies, with the best of all baselines at each horizon as the reference.

    Args:
        rows (`Iterable[Row]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers, and of those that need no tuning.

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
    ratios = {
        name: speed_ups(finals, name, baselines)
        for name in finals.optimizer.unique()
        if name not in baselines and not is_data_limit(name)
    }
    return [
        replace(summary, speed_up=ratios.get(summary.optimizer, {}).get(summary.num_training_steps))
        for horizon, of_horizon in finals.groupby("num_training_steps")
        for summary in _summarise_horizon(int(horizon), of_horizon, _best_baseline(of_horizon, baselines))
    ]


def _summarise_horizon(horizon: int, finals: pd.DataFrame, reference: str) -> list[Summary]:
    groups = finals.groupby("optimizer", sort=False)
    losses, accuracies = mean_and_stderr(groups.loss), mean_and_stderr(groups.accuracy)
    by_task = finals.pivot(index="task", columns="optimizer", values="loss")
    wins = by_task.lt(by_task[reference], axis=0).sum()
    losses_to_l3rs = by_task.gt(by_task[OPTIMIZER_NAME], axis=0).sum() if OPTIMIZER_NAME in by_task else None
    limits = [float(losses.loc[name, "mean"]) for name in losses.index if is_data_limit(name)]
    return [
        Summary(
            optimizer=name,
            num_training_steps=horizon,
            learning_rate=None if math.isnan(rate := of_optimizer.learning_rate.iloc[0]) else float(rate),
            num_tasks=len(of_optimizer),
            num_diverged=int((of_optimizer.loss == math.inf).sum()),
            loss=float(losses.loc[name, "mean"]),
            loss_stderr=_known(losses.loc[name, "stderr"]),
            loss_median=float(of_optimizer.loss.median()),
            accuracy=float(accuracies.loc[name, "mean"]),
            accuracy_stderr=_known(accuracies.loc[name, "stderr"]),
            wins=int(wins[name]),
            reference=reference,
            reference_loss=float(losses.loc[reference, "mean"]),
            data_limit_loss=min(limits, default=None),
            losses_to_l3rs=None if losses_to_l3rs is None else int(losses_to_l3rs[name]),
        )
        for name, of_optimizer in groups
    ]


def _known(stderr: float) -> float | None:
    return None if math.isnan(stderr) else float(stderr)


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


def to_markdown(summaries: Iterable[Summary]) -> str:
    """
    Returns a table with a line for each horizon and optimizer; the reference of each horizon is marked. Where a data
    limit was measured, its last column has the share of the gap between the two that is closed. Baselines that need no
    tuning are in [`tuning_free_to_markdown`] instead, but for one that is the best of all.
    """
    summaries = [summary for summary in summaries if summary.is_reference or not summary.is_tuning_free]
    headers = ["steps", "optimizer", "learning rate", "loss", "accuracy", "loss / best baseline", "wins"]
    headers += ["speed-up (95 %)", "gap closed"]
    has_limit = any(summary.data_limit_loss is not None for summary in summaries)
    columns = len(headers) if has_limit else len(headers) - 1
    alignments = ("right", "left", *["right"] * (columns - 2))
    return markdown_table(headers[:columns], [_cells(summary)[:columns] for summary in summaries], alignments)


def tuning_free_to_markdown(summaries: Iterable[Summary]) -> str:
    """Returns a table of the baselines that need no tuning, each beside L3RS, which needs none; empty without any."""
    summaries = list(summaries)
    ours = {each.num_training_steps: each.loss for each in summaries if each.optimizer == OPTIMIZER_NAME}
    headers = ("steps", "no tuning", "learning rate", "loss", "accuracy", "L3RS / its loss", "L3RS wins")
    lines = []
    for summary in summaries:
        if not summary.is_tuning_free:
            continue
        ratio = ours.get(summary.num_training_steps, math.nan) / summary.loss if summary.loss else math.nan
        wins = "" if summary.losses_to_l3rs is None else f"{summary.losses_to_l3rs} of {summary.num_tasks}"
        lines.append((*_measured(summary, summary.optimizer), _ratio(ratio), wins))
    return markdown_table(headers, lines, ("right", "left", *["right"] * 5)) if lines else ""


def _cells(summary: Summary) -> tuple[str, ...]:
    is_rival = not (summary.is_reference or summary.is_data_limit)
    share = summary.gap_closed if is_rival else None
    return (
        *_measured(summary, f"{summary.optimizer} (best baseline)" if summary.is_reference else summary.optimizer),
        _ratio(summary.ratio),
        f"{summary.wins} of {summary.num_tasks}" if is_rival else "",
        "" if summary.speed_up is None else describe_speed_up(**asdict(summary.speed_up)),
        "" if share is None else f"{100 * share:.0f} %",
    )


def describe_loss(summary: Summary) -> str:
    """The loss of a summary with its standard error, or on how many tasks it diverged."""
    if summary.num_diverged:
        return f"diverged on {summary.num_diverged} of {summary.num_tasks}, median {summary.loss_median:.3f}"
    return mean_with_stderr(summary.loss, summary.loss_stderr)


def _measured(summary: Summary, name: str) -> tuple[str, ...]:
    return (
        str(summary.num_training_steps),
        name,
        "none" if summary.learning_rate is None else f"{summary.learning_rate:g}",
        describe_loss(summary),
        percent_with_stderr(summary.accuracy, summary.accuracy_stderr),
    )


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"
