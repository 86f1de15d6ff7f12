"""What variations of one L3RS do on the same tasks, in pairs with the first: a table, and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hf_l3rs.evaluation.plots import HIGHLIGHT, LIMIT, pyplot, save_figure
from hf_l3rs.evaluation.rows import Row, final_rows, to_csv
from hf_l3rs.markdown import markdown_table


def compared(rows: Sequence[Row], base: str) -> dict[int, pd.DataFrame]:
    """
    Compares final losses in pairs.

    Args:
        rows (`Sequence[Row]`): Of all variations on the same tasks; `optimizer` names them.
        base (`str`): The variation that the others are compared with.

    Returns:
        `dict[int, pandas.DataFrame]`: By length of run, a row for each variation in the order of the rows, with the
        columns `loss`, the mean; `difference`, the mean over tasks of what it is above the base's; `stderr`, the
        standard error of that, NaN for a single task; and `num_diverged`, the tasks that these leave out because it
        diverged there.
    """
    tables = {}
    for length, finals in final_rows(rows).groupby("num_training_steps"):
        losses = finals.pivot(index="task", columns="optimizer", values="loss")[list(finals.optimizer.unique())]
        diverged = losses == math.inf
        losses = losses.mask(diverged)
        differences = losses.sub(losses[base], axis=0)
        columns = {"loss": losses.mean(), "difference": differences.mean(), "stderr": differences.sem()}
        tables[int(length)] = pd.DataFrame({**columns, "num_diverged": diverged.sum()})
    return tables


def to_table(tables: Mapping[int, pd.DataFrame], costs: Mapping[str, Mapping[str, float]], base: str) -> str:
    """
    Returns a line for each variation.

    Args:
        tables (`Mapping[int, pandas.DataFrame]`): Of [`compared`].
        costs (`Mapping[str, Mapping[str, float]]`): By variation, summaries of meta-training, which say what it cost.
        base (`str`): The variation that the others are compared with.
    """
    lines = []
    for name, cost in costs.items():
        cells = [_cell(table.loc[name], is_base=name == base) for table in tables.values()]
        numbers = [f"{cost[key]:,.0f}" for key in ("inner_steps", "cost_in_plain_steps", "seconds")]
        lines.append((name, *cells, *numbers))
    headers = ("variation", *(f"{length} steps" for length in tables), "inner steps", "in plain ones", "seconds")
    return markdown_table(headers, lines, ("left", *["right"] * (len(headers) - 1)))


def _cell(figures: pd.Series, is_base: bool) -> str:
    if figures.num_diverged:
        return f"diverged on {figures.num_diverged:.0f}"
    loss = f"{figures.loss:.3f}"
    if is_base:
        return loss
    stderr = "" if math.isnan(figures.stderr) else f" ± {figures.stderr:.3f}"
    return f"{loss} ({figures.difference:+.3f}{stderr})"


def plot_ablation(rows: Sequence[Row], path: Path) -> None:
    """
    Draws the differences to the first variation of the rows, a panel for each length of run.

    Args:
        rows (`Sequence[Row]`): Of all variations on the same tasks.
        path (`Path`): The PNG to write.
    """
    plt, tables = pyplot(), compared(rows, rows[0].optimizer)
    names = list(next(iter(tables.values())).index)[1:]
    figure, axes = plt.subplots(
        1,
        len(tables),
        figsize=(3 + 2.6 * len(tables), 1.2 + 0.26 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (length, table) in zip(axes.flat, tables.items()):
        own = table.loc[names]
        axis.barh(names, own.difference, xerr=own.stderr, color=HIGHLIGHT, alpha=0.75, height=0.6)
        axis.axvline(0, color=LIMIT, linewidth=0.8)
        axis.set_title(f"runs of {length} steps", fontsize=10)
        axis.set_xlabel("loss above the base's", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, axis="x")
    axes[0, 0].invert_yaxis()  # of all: the first on top
    save_figure(figure, path, to_csv(rows).encode(), dpi=110)
