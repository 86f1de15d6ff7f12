"""What variations of one L3RS do on the same tasks, in pairs with the first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from hf_l3rs.evaluation.report import losses_by_task
from hf_l3rs.evaluation.store import Row, final_rows
from hf_l3rs.markdown import markdown_table


def variations_table(rows: Sequence[Row]) -> str:
    """
    Returns a line for each variation: its loss, and in brackets how far that is above the first's.

    Args:
        rows (`Sequence[Row]`): Of all variations on the same tasks; `optimizer` names them.
    """
    finals = final_rows(rows)
    by_length = {int(steps): losses_by_task(own) for steps, own in finals.groupby("num_training_steps")}
    names = list(finals.optimizer.unique())
    lines = [(name, *(_cell(losses, name, names[0]) for losses in by_length.values())) for name in names]
    headers = ("variation", *(f"{steps} steps" for steps in by_length))
    return markdown_table(headers, lines, ("left", *["right"] * len(by_length)))


def _cell(losses: pd.DataFrame, name: str, base: str) -> str:
    own = losses[name]
    if diverged := (own == math.inf).sum():
        return f"diverged on {diverged}"
    if name == base:
        return f"{own.mean():.3f}"
    above = own - losses[base]
    error = "" if len(above) == 1 else f" ± {above.sem():.3f}"
    return f"{own.mean():.3f} ({above.mean():+.3f}{error})"
