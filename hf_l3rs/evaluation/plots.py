"""Pictures of what a benchmark measured."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from hf_l3rs.evaluation.report import comparable, mean_and_stderr
from hf_l3rs.evaluation.store import Row, to_csv, to_frame
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.results import OPTIMIZER_NAME


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Tables = dict[str, pd.DataFrame]  # by optimizer, with a row for each step: `mean` and `stderr`
    Styles = dict[str, dict[str, Any]]  # by optimizer, what matplotlib draws its line with

# L3RS and what is made of it stand out; baselines keep to muted colours that differ in lightness too.
HIGHLIGHT, VARIANTS = "#c1121f", ("#f77f00", "#e5989b")
MUTED = ("#1d3557", "#457b9d", "#8d99ae", "#588157", "#b08968", "#6d597a")

MAX_COLUMNS = 3  # lengths of run side by side; more of them go below
_DIGEST = "Data digest"  # where a PNG keeps the digest of what it was drawn from


def plot_learning_curves(rows: Sequence[Row], path: PathLike, title: str) -> None:
    """Draws loss and accuracy over steps as a PNG, a line for each optimizer, a column for each length of run."""
    frame = to_frame(comparable(rows))
    styles = _styles(frame.optimizer.unique())
    horizons = sorted(frame.num_training_steps.unique())
    bands = math.ceil(len(horizons) / MAX_COLUMNS)
    columns = math.ceil(len(horizons) / bands)  # as many in each band
    size = (max(4.2 * columns, 6), 5.6 * bands + 0.8)  # not narrower than the title
    figure, axes = pyplot().subplots(
        2 * bands, columns, figsize=size, squeeze=False, sharey="row", layout="constrained"
    )
    handles: dict[str, Any] = {}
    for axis in axes[-2:, len(horizons) - columns * (bands - 1) :].flat:
        axis.set_visible(False)
    for index, horizon in enumerate(horizons):
        band, column = divmod(index, columns)
        for metric, axis in zip(("loss", "accuracy"), axes[2 * band : 2 * band + 2, column]):
            _draw_curves(axis, frame[frame.num_training_steps == horizon], metric, styles)
            axis.set_ylabel(f"evaluation {metric}" if column == 0 else "")
            # lines, which come later, also show how they are dashed
            handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
        axes[2 * band, column].set_title(f"runs of {horizon} steps", fontsize=10)
    for axis in axes[::2, 0]:
        scale_loss(axis)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path, to_csv(rows).encode())


def _styles(names: Sequence[str]) -> Styles:
    """How each optimizer is drawn; a colour that comes again is dashed."""
    styles: Styles = {OPTIMIZER_NAME: {"color": HIGHLIGHT, "linewidth": 2.4, "zorder": 3}}
    variants = [name for name in names if name.startswith(f"{OPTIMIZER_NAME}, ")]
    others = [name for name in names if name != OPTIMIZER_NAME and name not in variants]
    for palette, group in ((VARIANTS, variants), (MUTED, others)):
        for index, name in enumerate(group):
            dashes = ("-", "--", ":", "-.")[index // len(palette) % 4]
            styles[name] = {"color": palette[index % len(palette)], "linewidth": 1.3, "linestyle": dashes}
    return styles


def _draw_curves(axis: Axes, frame: pd.DataFrame, metric: str, styles: Styles) -> None:
    """Means over tasks with one standard error: as lines with a band, or as points where there is a single step."""
    groups = frame.groupby("optimizer", sort=False)
    tables = {name: mean_and_stderr(rows.groupby("step")[metric]) for name, rows in groups}
    tables = {name: table.where(table["mean"] < math.inf) for name, table in tables.items()}
    if frame.step.nunique() == 1:
        _draw_points(axis, tables, styles, metric == "loss")
        axis.set_xlabel(f"at step {frame.step.iloc[0]}")
    else:
        _draw_lines(axis, tables, styles)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    # a mean that is infinite has no place in the picture, so it is said
    diverged = frame[(frame.step == frame.num_training_steps) & (frame.loss == math.inf)]
    counts = diverged.groupby("optimizer", sort=False).size()
    text = "\n".join(f"{name}: {count} diverged" for name, count in counts.items())
    axis.text(0.98, 0.98, text if metric == "loss" else "", transform=axis.transAxes, ha="right", va="top", fontsize=7)


def _draw_lines(axis: Axes, tables: Tables, styles: Styles) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, table in tables.items():
        axis.plot(table.index, table["mean"], marker="o", markersize=3, label=name, **styles[name])
        low, high = table["mean"] - table["stderr"], table["mean"] + table["stderr"]
        axis.fill_between(table.index, low, high, color=styles[name]["color"], alpha=0.15, linewidth=0)
    axis.set(xlim=(0, None), xlabel="step")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 5, 10), integer=True))


def _draw_points(axis: Axes, tables: Tables, styles: Styles, is_loss: bool) -> None:
    """Side by side, the best first: at the same place they would hide one another. Losses bear names."""
    place: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    means = pd.Series({name: table["mean"].iloc[0] for name, table in tables.items()}, dtype=float)
    for index, (name, mean) in enumerate(means.sort_values(ascending=is_loss, kind="stable").items()):
        stderr = tables[name]["stderr"]
        axis.errorbar(
            [index], [mean], stderr, fmt="o", capsize=3, markersize=4, color=styles[name]["color"], label=name
        )
        if is_loss and math.isfinite(mean):
            axis.annotate(name, (index, mean), rotation=90, fontsize=6.5, **place)
    axis.set_xticks([])
    axis.margins(x=0.08, y=0.3 if is_loss else 0.05)


def scale_loss(axis: Axes) -> None:
    """A logarithmic scale with a few ticks, as plain numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)) if high > 5 * low else MaxNLocator(nbins=5))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def save_figure(figure: Any, path: PathLike, data: bytes, dpi: int = 150) -> None:
    """Writes a picture as a PNG, with a digest of its data for [`is_picture_of`], and closes it."""
    image, path = io.BytesIO(), Path(path)
    figure.savefig(image, dpi=dpi, format="png", metadata={_DIGEST: _digest(data)})
    pyplot().close(figure)
    write_files(path.parent, {path.name: image.getvalue()})


def is_picture_of(path: PathLike, data: bytes) -> bool:
    """Whether a PNG is there, and was drawn from these very data by [`save_figure`]."""
    if not Path(path).is_file():
        return False
    with Image.open(path) as image:
        return image.info.get(_DIGEST) == _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def pyplot() -> Any:
    """Returns `matplotlib.pyplot`, which draws into files alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
