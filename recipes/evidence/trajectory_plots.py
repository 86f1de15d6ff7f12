"""A picture of what an L3RS decides over a run (paper, figs. 4 and 5)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hf_l3rs.evaluation.plots import pyplot, save_figure
from recipes.evidence.behaviour import name_of
from recipes.evidence.trajectories import SHARE, directions_of, to_csv


if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAJECTORIES_NAME = "trajectories.png"

# Roles side by side; more of them go below.
MAX_COLUMNS = 7
_DEPTHS = "viridis_r"


def plot_trajectories(table: pd.DataFrame, path: str | Path, title: str) -> None:
    """
    Draws, for each role, the steps of its layers in multiples of the base step, and below them the share of each
    direction, one line a layer, coloured by depth.

    Args:
        table (`pandas.DataFrame`): Of [`~recipes.evidence.trajectories.to_table`].
        path (`str` or `Path`): The PNG to write.
        title (`str`): Above the picture.
    """
    plt = pyplot()
    roles, directions = table.role.unique(), directions_of(table)[:-1] or directions_of(table)
    columns = min(len(roles), MAX_COLUMNS)
    values = {"relative_step": "step / base step", **{f"{SHARE}{name}": f"share of {name}" for name in directions}}
    bands = math.ceil(len(roles) / columns)
    figure, axes = plt.subplots(
        len(values) * bands,
        columns,
        figsize=(max(1.9 * columns, 6), 1.6 * len(values) * bands + 0.8),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_visible(False)
    colors = plt.get_cmap(_DEPTHS)
    for index, role in enumerate(roles):
        band, column = divmod(index, columns)
        for row, (value, label) in enumerate(values.items()):
            axis = axes[len(values) * band + row, column]
            _draw(axis, table[table.role == role], value, colors)
            axis.set_ylabel(label if column == 0 else "", fontsize=8)
            _scale(axis, table[value], is_share=value.startswith(SHARE))
            axis.set_title(name_of(role) if row == 0 else "", fontsize=9)
    figure.colorbar(
        plt.cm.ScalarMappable(cmap=colors), ax=axes, label="depth, from the first layer to the head", shrink=0.6
    )
    figure.supxlabel("step", fontsize=9)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path, to_csv(table), dpi=90)


def _draw(axis: Axes, table: pd.DataFrame, value: str, colors: Any) -> None:
    axis.set_visible(True)
    for _, of_layer in table.groupby("layer", sort=False):
        axis.plot(of_layer.step, of_layer[value], color=colors(of_layer.depth.iloc[0]), linewidth=1.0)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _scale(axis: Axes, values: pd.Series, is_share: bool) -> None:
    """The same for all roles, so that they can be compared, with ticks that are plain numbers."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    if is_share:
        axis.set_ylim(0, 1)
        return
    axis.set_yscale("log")
    low, high = 0.8 * values[values > 0].min(), 1.25 * values.max()
    axis.set_ylim(low, high)
    if high < 10 * low:
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter("{x:g}")
