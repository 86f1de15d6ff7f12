"""The paper's figure 3: loss over the length of the run, a panel a cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_l3rs.evaluation.plots import HIGHLIGHT, MUTED, pyplot, save_figure, scale_loss
from hf_l3rs.evaluation.report import Summary, summarise
from hf_l3rs.evaluation.store import Row, to_csv
from hf_l3rs.hub.results import OPTIMIZER_NAME
from recipes.evidence.experiment import LETTERS, SETTINGS
from recipes.evidence.stored import rivals_in


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Panels side by side; more of them go below.
MAX_COLUMNS = 3


def plot_grid(
    cells: Mapping[str, Sequence[Row]], path: str | Path, title: str, trained_steps: int | None = None
) -> None:
    """
    Draws the mean final loss over the length of the run, a panel for each cell: of L3RS, of the best tuned baseline of
    each length, and of an untrained L3RS.

    Args:
        cells (`Mapping[str, Sequence[Row]]`): The rows of each comparison, by the names of [`SETTINGS`].
        path (`str` or `Path`): The PNG to write.
        title (`str`): Above the picture.
        trained_steps (`int`, *optional*): The longest run of meta-training; the line of L3RS is dashed beyond it.
    """
    plt = pyplot()
    columns = min(len(cells), MAX_COLUMNS)
    bands = math.ceil(len(cells) / columns)
    figure, axes = plt.subplots(
        bands, columns, figsize=(3.6 * columns, 3.1 * bands + 0.6), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(cells) :]:
        axis.set_visible(False)
    for axis, (name, rows) in zip(axes.flat, cells.items()):
        _draw_losses(axis, summarise(rows, rivals_in(rows)), trained_steps)
        axis.set_title(f"{LETTERS[name]}{SETTINGS[name]}", fontsize=10)
        axis.set_xlabel("length of the run, steps", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes.flat[0].legend(fontsize=7, frameon=False)
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


def _scale_steps(axis: Axes, lengths: Iterable[int]) -> None:
    """A logarithmic scale whose ticks are the measured lengths."""
    axis.set_xscale("log")
    axis.set_xticks(sorted(lengths))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.tick_params(labelsize=8)
