"""The paper's figure 3: loss over the length of the run, a panel a cell. Needs `pip install hf_l3rs[plots]`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_l3rs.evaluation.plots import HIGHLIGHT, MUTED, NEUTRAL, pyplot, save_figure, scale_loss
from hf_l3rs.evaluation.report import Summary, rivals_in, summarise
from hf_l3rs.evaluation.store import Row, final_rows, to_csv
from hf_l3rs.hub.results import OPTIMIZER_NAME
from recipes.evidence.experiment import LETTERS, SETTINGS
from recipes.evidence.speed_up import SpeedUp, speed_ups


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Panels side by side; more of them go below.
MAX_COLUMNS = 3


def plot_grid(
    cells: Mapping[str, Sequence[Row]], path: str | Path, title: str, trained_steps: int | None = None
) -> None:
    """
    Draws the mean final loss over the length of the run, a panel for each cell: of L3RS, of the best tuned baseline of
    each length, and of an untrained L3RS; the last panel has the speed-up of all cells.

    Args:
        cells (`Mapping[str, Sequence[Row]]`): The rows of each comparison, by the names of [`SETTINGS`].
        path (`str` or `Path`): The PNG to write.
        title (`str`): Above the picture.
        trained_steps (`int`, *optional*): The longest run of meta-training; the line of L3RS is dashed beyond it.
    """
    plt = pyplot()
    columns = min(len(cells) + 1, MAX_COLUMNS)
    bands = math.ceil((len(cells) + 1) / columns)
    figure, axes = plt.subplots(
        bands, columns, figsize=(3.6 * columns, 3.1 * bands + 0.6), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(cells) + 1 :]:
        axis.set_visible(False)
    last, lengths = axes.flat[len(cells)], set[int]()
    for index, (name, rows) in enumerate(cells.items()):
        rivals = rivals_in(rows)
        summaries = summarise(rows, rivals)
        axis = axes.flat[index]
        _draw_losses(axis, summaries, trained_steps)
        axis.set_title(f"{LETTERS[name]}{SETTINGS[name]}", fontsize=10)
        ups = speed_ups(final_rows(rows), OPTIMIZER_NAME, rivals)
        _draw_speed_up(last, ups, SETTINGS[name], MUTED[index % len(MUTED)])
        lengths |= {each.num_training_steps for each in summaries}
    _scale_steps(last, lengths)
    last.axhline(1, color=NEUTRAL, linewidth=0.8)
    last.set_title("F  speed-up over the best baseline", fontsize=10)
    if last.get_legend_handles_labels()[0]:  # bounds alone have no curve
        last.legend(fontsize=7, frameon=False)
    axes.flat[0].legend(fontsize=7, frameon=False)
    for axis in axes.flat[: len(cells) + 1]:
        axis.set_xlabel(f"length of the run, steps{'; ▲ at least, ▼ at most' if axis is last else ''}", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path, grid_data(cells), dpi=110)


def grid_data(cells: Mapping[str, Sequence[Row]]) -> bytes:
    """Returns what [`plot_grid`] draws from, as [`~hf_l3rs.evaluation.plots.is_picture_of`] takes it."""
    return "".join(f"{name}\n{to_csv(rows)}" for name, rows in cells.items()).encode()


def _draw_losses(axis: Axes, summaries: Sequence[Summary], trained_steps: int | None) -> None:
    def curve(chosen: Callable[[Summary], bool], label: str, color: str) -> None:
        points = [each for each in summaries if chosen(each) and each.loss < math.inf]
        if not points:
            return
        steps, losses = [each.num_training_steps for each in points], [each.loss for each in points]
        inside = [step for step in steps if trained_steps is None or step <= trained_steps]
        is_ours = label == OPTIMIZER_NAME
        count = len(inside) if is_ours else len(steps)
        axis.plot(steps[:count], losses[:count], "o-", color=color, label=label, markersize=3)
        if count < len(steps):
            start = max(0, count - 1)
            axis.plot(steps[start:], losses[start:], "o--", color=color, markersize=3)
        low = [each.loss - (each.loss_stderr or 0.0) for each in points]
        high = [each.loss + (each.loss_stderr or 0.0) for each in points]
        axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)

    curve(lambda each: each.optimizer == OPTIMIZER_NAME, OPTIMIZER_NAME, HIGHLIGHT)
    curve(lambda each: each.is_reference, "best tuned baseline", MUTED[0])
    curve(lambda each: each.optimizer == f"{OPTIMIZER_NAME}, untrained", "untrained L3RS", MUTED[2])
    scale_loss(axis)
    axis.set_ylabel("evaluation loss", fontsize=8)
    _scale_steps(axis, {each.num_training_steps for each in summaries})


def _draw_speed_up(axis: Axes, speed_ups: Mapping[int, SpeedUp], label: str, color: str) -> None:
    """Bounds are arrows, as nobody knows how far the value lies beyond them."""
    known = [(steps, up) for steps, up in speed_ups.items() if up.bound is None]
    if known:
        steps, ups = zip(*known)
        below = [up.ratio - (up.ratio if up.low is None else up.low) for up in ups]
        above = [(up.ratio if up.high is None else up.high) - up.ratio for up in ups]
        ratios = [up.ratio for up in ups]
        axis.errorbar(steps, ratios, yerr=[below, above], fmt="o-", color=color, label=label, capsize=2, markersize=3)
    for bound, marker in (("at least", "^"), ("at most", "v")):
        points = [(steps, up.ratio) for steps, up in speed_ups.items() if up.bound == bound]
        if points:
            axis.plot(*zip(*points), marker, color=color, markersize=5)


def _scale_steps(axis: Axes, lengths: Iterable[int]) -> None:
    """A logarithmic scale whose ticks are the measured lengths."""
    axis.set_xscale("log")
    axis.set_xticks(sorted(lengths))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.tick_params(labelsize=8)
