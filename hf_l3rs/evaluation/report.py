"""What a benchmark's rows say: summaries with paired differences, as a table, as sentences, as entries of a card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api.typing import SeriesGroupBy

from hf_l3rs.errors import ArtifactError, DataError
from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES, is_tuning_free
from hf_l3rs.evaluation.store import Row, final_rows, ranked
from hf_l3rs.hub.results import OPTIMIZER_NAME, UNTRAINED, Result
from hf_l3rs.markdown import markdown_table, mean_with_stderr, percent_with_stderr
from hf_l3rs.validation import Range, short


# Half the width of a 95 % interval in standard errors (Student's t), by degrees of freedom from 1 on; then the limit.
_T_95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]
_T_95 += [2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]
_T_LIMIT = 1.96

_STANDS = {"ahead": "ahead of", "level": "level with", "behind": "behind"}

_MANY_PASSES = "Data limit"  # in some stored tables: runs with many passes over their batches


@dataclass(frozen=True)
class Paired:
    """The losses of one optimizer less those of another on the same tasks, in nats."""

    difference: float  # mean: negative if the first is better, infinite if one of them diverged
    stderr: float | None  # `None` for a single task or if a run diverged
    low: float  # ends of the 95 % interval
    high: float
    wins: int  # tasks on which the first has the lower loss
    num_tasks: int

    @property
    def verdict(self) -> str:
        """How the first stands beside the second: `"ahead"`, `"behind"`, or `"level"` if the interval holds zero."""
        return "ahead" if self.high < 0 else "behind" if self.low > 0 else "level"


def compare_paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Compares final losses, one a task. Whoever diverges on a task loses beyond any interval; two are equal there."""
    differences = pd.Series([0.0 if a == b else a - b for a, b in zip(ours, theirs, strict=True)])
    wins, count = int((differences < 0).sum()), len(differences)
    worst, best = float(differences.max()), float(differences.min())
    if math.isinf(worst) or math.isinf(best):
        low, high = (best if math.isinf(best) else worst), (worst if math.isinf(worst) else best)
        return Paired(low if low == high else 0.0, None, low, high, wins, count)
    mean = float(differences.mean())
    if count < 2:
        return Paired(mean, None, -math.inf, math.inf, wins, count)
    stderr = float(differences.sem())
    half = stderr * (_T_95[count - 2] if count - 2 < len(_T_95) else _T_LIMIT)
    return Paired(mean, stderr, mean - half, mean + half, wins, count)


@dataclass(frozen=True)
class Summary:
    """An optimizer at the end of runs of one length, beside the best baseline, its reference. Means are over tasks."""

    optimizer: str
    num_training_steps: int
    learning_rate: float | None
    num_tasks: int
    num_diverged: int
    loss: float
    loss_stderr: float | None
    accuracy: float
    accuracy_stderr: float | None
    reference: str
    paired: Paired

    @property
    def is_reference(self) -> bool:
        return self.optimizer == self.reference


def mean_and_stderr(values: SeriesGroupBy) -> pd.DataFrame:
    """Returns a row for each group with `mean` and `stderr`: NaN for a single value, infinite where the mean is."""
    table = values.agg(["mean", "sem"]).rename(columns={"sem": "stderr"})
    table["stderr"] = table["stderr"].where(table["mean"] < math.inf, math.inf)
    return table


def comparable(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows of runs that see each of their batches once, as all do but one kind in some stored tables."""
    return [row for row in rows if not row.optimizer.startswith(_MANY_PASSES)]


def best_baseline(finals: pd.DataFrame, baselines: Sequence[str]) -> str:
    """Returns the baseline that does best on the tasks of the comparison themselves, in runs of one length."""
    table = ranked(finals[finals.optimizer.isin(list(baselines))], ["optimizer"])
    if table.empty:
        raise DataError(
            f"The rows hold no run of a baseline ({', '.join(baselines) or 'none is named'}) to compare with; measure "
            "at least one."
        )
    return table.optimizer.iloc[0]


def summarise(rows: Iterable[Row], baselines: Sequence[str]) -> list[Summary]:
    """Summarises final losses and accuracies, by horizon, beside the best of the named baselines there."""
    finals = final_rows(comparable(rows))
    repeated = finals[finals.duplicated(["optimizer", "task", "num_training_steps"])]
    if len(repeated):
        raise DataError(
            f"The rows hold {repeated.optimizer.iloc[0]} on task {repeated.task.iloc[0]} for "
            f"{repeated.num_training_steps.iloc[0]} steps twice; keep one of each run."
        )
    return [
        summary
        for horizon, of_horizon in finals.groupby("num_training_steps")
        for summary in _summarise_horizon(int(horizon), of_horizon, best_baseline(of_horizon, baselines))
    ]


def _summarise_horizon(horizon: int, finals: pd.DataFrame, reference: str) -> list[Summary]:
    groups = finals.groupby("optimizer", sort=False)
    losses, accuracies = mean_and_stderr(groups.loss), mean_and_stderr(groups.accuracy)
    by_task = losses_by_task(finals)
    return [
        Summary(
            optimizer=name,
            num_training_steps=horizon,
            learning_rate=None if math.isnan(rate := of_optimizer.learning_rate.iloc[0]) else float(rate),
            num_tasks=len(of_optimizer),
            num_diverged=int((of_optimizer.loss == math.inf).sum()),
            loss=float(losses.loc[name, "mean"]),
            loss_stderr=_known(losses.loc[name, "stderr"]),
            accuracy=float(accuracies.loc[name, "mean"]),
            accuracy_stderr=_known(accuracies.loc[name, "stderr"]),
            reference=reference,
            paired=_compare(by_task, name, reference),
        )
        for name, of_optimizer in groups
    ]


def losses_by_task(finals: pd.DataFrame) -> pd.DataFrame:
    """Returns final losses of runs of one length, with a row for each task and a column for each optimizer."""
    return finals.pivot(index="task", columns="optimizer", values="loss")


def _compare(by_task: pd.DataFrame, first: str, second: str) -> Paired:
    """Compares two optimizers on the tasks that both ran on."""
    both = by_task[[first, second]].dropna().to_numpy()
    return compare_paired(both[:, 0].tolist(), both[:, -1].tolist())


def _known(stderr: float) -> float | None:
    return None if math.isnan(stderr) else float(stderr)


def to_markdown(summaries: Iterable[Summary]) -> str:
    """Returns a table with a line for each horizon and optimizer, each beside the best baseline of its horizon."""
    headers = ("steps", "optimizer", "learning rate", "loss", "accuracy", "loss − best baseline's", "wins", "verdict")
    lines = []
    for each in summaries:
        paired, difference = each.paired, ""
        if math.isfinite(paired.difference):
            difference = f"{paired.difference:+.3f}" + ("" if paired.stderr is None else f" ± {paired.stderr:.3f}")
        beside = (difference, f"{paired.wins} of {paired.num_tasks}", paired.verdict)
        rate = "none" if each.learning_rate is None else f"{each.learning_rate:g}"
        loss = mean_with_stderr(each.loss, each.loss_stderr)
        if each.num_diverged:
            loss = f"diverged on {each.num_diverged} of {each.num_tasks}"
        accuracy = percent_with_stderr(each.accuracy, each.accuracy_stderr)
        beside = ("", "", "best baseline") if each.is_reference else beside
        lines.append((each.num_training_steps, each.optimizer, rate, loss, accuracy, *beside))
    return markdown_table(headers, lines, ("right", "left", *["right"] * 5, "left"))


def describe(rows: Iterable[Row], summaries: Iterable[Summary], cost: float | None = None) -> str:
    """
    Says, a line for each length of run, how L3RS stands beside the best baseline, and when the cost of meta-training,
    in plain steps, is paid back: where it made the L3RS better, and the best baseline has a rate to search.
    """
    finals = final_rows(rows)
    lines = []
    for each in summaries:
        if each.optimizer != OPTIMIZER_NAME:
            continue
        steps = each.num_training_steps
        line = f"- After {steps} steps {OPTIMIZER_NAME} is {_STANDS[each.paired.verdict]} {each.reference}, the best "
        line += f"baseline. It is lower on {each.paired.wins} of {each.paired.num_tasks} tasks."
        by_task = losses_by_task(finals[finals.num_training_steps == steps])
        gain = _compare(by_task, OPTIMIZER_NAME, UNTRAINED).verdict if UNTRAINED in by_task else "ahead"
        if gain != "ahead":
            line += f" Untrained, it is {'level with that' if gain == 'level' else 'better'}."
        elif cost and each.paired.verdict != "behind" and not is_tuning_free(each.reference):
            rates = len(ADAPTIVE_RATES)
            runs = math.ceil(cost / ((rates - 1) * steps))  # that save its own steps
            line += f" Its meta-training, worth {cost:,.0f} plain steps, is paid back after {runs:,} tasks beside a "
            line += f"user who would try {rates} learning rates on each."
        lines.append(line)
    return "\n".join(lines)


def meta_training_cost(meta_training: Mapping[str, Any]) -> float | None:
    """Returns what a meta-training cost, in steps of plain fine-tuning; `None` if the artefact does not tell."""
    cost = meta_training.get("cost_in_plain_steps", meta_training.get("inner_steps"))
    if cost is None:
        return None
    if not isinstance(cost, (int, float)) or isinstance(cost, bool) or cost not in Range(low=0):
        raise ArtifactError(
            "The L3RS has a damaged record of what its meta-training cost: it must be a number of steps, got "
            f"{short(cost)}; meta-train or download it again."
        )
    return cost


def to_results(summaries: Sequence[Summary], baselines: Sequence[str], **measured: Any) -> list[Result]:
    """Turns the summaries of all but baselines into entries of a model card, which share what is `measured`."""
    references = {summary.num_training_steps: summary for summary in summaries if summary.is_reference}
    results = []
    for summary in summaries:
        if summary.optimizer in baselines:
            continue
        reference, paired = references[summary.num_training_steps], summary.paired
        results.append(
            Result(
                optimizer=summary.optimizer,
                num_training_steps=summary.num_training_steps,
                num_tasks=summary.num_tasks,
                loss=summary.loss,
                loss_stderr=None if summary.num_diverged else summary.loss_stderr,
                accuracy=summary.accuracy,
                accuracy_stderr=summary.accuracy_stderr,
                baseline=reference.optimizer + ("" if is_tuning_free(reference.optimizer) else ", tuned"),
                baseline_loss=reference.loss,
                baseline_accuracy=reference.accuracy,
                difference_low=paired.low if math.isfinite(paired.low) else None,
                difference_high=paired.high if math.isfinite(paired.high) else None,
                verdict=paired.verdict,
                wins=paired.wins,
                num_diverged=summary.num_diverged or None,
                **measured,
            )
        )
    return results
