"""How many times as many steps the best baseline needs for the same loss (paper, fig. 3 F), and how sure that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


# Resamplings of the tasks that an interval is made from, and how many of them lie in it.
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SpeedUp:
    """
    The steps of the best baseline for the same loss, divided by the steps of an optimizer: 2.0 is half the steps.

    Args:
        ratio (`float`): Between the shortest and the longest length of run that baselines were measured at.
        low (`float`, *optional*): Lower end of the interval; `None` where it lies below what was measured.
        high (`float`, *optional*): Upper end of the interval; `None` where it lies beyond what was measured.
        bound (`str`, *optional*):
            How to read a ratio that lies outside of what was measured: `"at least"`, as baselines never get there, or
            `"at most"`, as they are there after their shortest runs.
    """

    ratio: float
    low: float | None
    high: float | None
    bound: str | None = None


def steps_for_loss(curve: Mapping[int, float], loss: float) -> float:
    """
    Returns how many steps a curve needs for a loss, interpolated between its points, log loss over log steps.

    Args:
        curve (`Mapping[int, float]`): Losses by steps, as of runs that are tuned each for its own length.
        loss (`float`): Where to get.

    Returns:
        `float`: 0 if the curve is lower from its first point on, infinity if it never is so low.
    """
    points = sorted((steps, value) for steps, value in curve.items() if value < math.inf)
    if not points or loss > points[0][1]:
        return 0.0 if points else math.inf
    if loss == points[0][1]:
        return float(points[0][0])
    for (few, worse), (many, better) in itertools.pairwise(points):
        if better <= loss < worse:
            if better <= 0:  # of which there is no logarithm
                return float(many)
            share = math.log(worse / loss) / math.log(worse / better)
            return float(few * (many / few) ** share)
    return math.inf


def speed_ups(finals: pd.DataFrame, optimizer: str, baselines: Sequence[str]) -> dict[int, SpeedUp]:
    """
    Returns the speed-up of an optimizer at every length of its runs, with the interval of resampled tasks.

    Tasks are resampled with replacement, all optimizers and lengths of run together, and the best baseline of each
    length is chosen anew each time. The resampling is seeded, so that the same rows give the same interval.

    Args:
        finals (`pandas.DataFrame`): Of [`~hf_l3rs.evaluation.store.final_rows`], each run once.
        optimizer (`str`): Whose speed-up.
        baselines (`Sequence[str]`): Names of the tuned optimizers.

    Returns:
        `dict[int, SpeedUp]`: By length; without those at which it diverged, or where no baseline was measured on the
        same tasks.
    """
    names = [name for name in baselines if name in set(finals.optimizer)]
    table = finals[finals.optimizer.isin([optimizer, *names])].pivot(
        index="task", columns=["optimizer", "num_training_steps"], values="loss"
    )
    table = table.dropna()  # tasks that only some were measured on are no pairs
    own = [steps for name, steps in table.columns if name == optimizer and table[name, steps].max() < math.inf]
    if table.empty or not names:
        return {}
    draws = np.random.default_rng(0).integers(len(table), size=(NUM_RESAMPLES, len(table)))
    curves = list(_curves(table, [np.arange(len(table)), *draws], names))
    if min(curves[0].values()) == math.inf:
        return {}
    return {int(steps): _speed_up(curves, _means(table[optimizer, steps], draws), int(steps)) for steps in sorted(own)}


def _curves(table: pd.DataFrame, draws: Sequence[np.ndarray], baselines: Sequence[str]) -> Iterator[dict[int, float]]:
    """For each draw of tasks the lowest mean loss of the baselines by steps; infinite where all diverged."""
    by_steps: dict[int, list[np.ndarray]] = {}
    for name, steps in table.columns:
        if name in baselines:
            by_steps.setdefault(int(steps), []).append(table[name, steps].to_numpy())
    rows = np.stack(list(draws))
    best = {steps: np.min([each[rows].mean(axis=1) for each in losses], axis=0) for steps, losses in by_steps.items()}
    for index in range(len(rows)):
        yield {steps: float(losses[index]) for steps, losses in best.items()}


def _means(losses: pd.Series, draws: np.ndarray) -> list[float]:
    """The mean over all tasks, then those over each draw."""
    values = losses.to_numpy()
    return [float(values.mean()), *values[draws].mean(axis=1).tolist()]


def _speed_up(curves: Sequence[Mapping[int, float]], losses: Sequence[float], steps: int) -> SpeedUp:
    needed = np.array([steps_for_loss(curve, loss) for curve, loss in zip(curves, losses)])
    measured = [length for length, loss in curves[0].items() if loss < math.inf]
    shortest, longest = min(measured) / steps, max(measured) / steps
    tail = (1 - CONFIDENCE) / 2
    # no interpolation between order statistics, of which some may be infinite
    low, high = np.quantile(needed[1:] / steps, (tail, 1 - tail), method="closest_observation")
    ratio = needed[0] / steps
    return SpeedUp(
        ratio=float(min(max(ratio, shortest), longest)),
        low=None if low == 0 else float(min(low, longest)),
        high=None if high == math.inf else float(max(high, shortest)),
        bound="at least" if ratio == math.inf else "at most" if ratio == 0 else None,
    )
