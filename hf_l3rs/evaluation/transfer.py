"""What an L3RS does on models that it never saw, untouched and after warm starts, beside baselines: a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.report import Summary, summarise
from hf_l3rs.evaluation.results import Row
from hf_l3rs.markdown import markdown_table, mean_with_stderr


UNTOUCHED = "untouched"
# Shown for each model, as what somebody would take who knows nothing of it.
FIXED = "Adam at 1e-3"


def to_table(rows: Mapping[str, Sequence[Row]]) -> str:
    """
    Returns a line for each model and length of run: every variant of the L3RS, with the tasks on which its loss is
    lower than the best baseline's, then Adam at 1e-3, then the best baseline by name.

    Args:
        rows (`Mapping[str, Sequence[Row]]`):
            By model. `optimizer` names a baseline, `"Adam at 1e-3"` among them, or else a variant, in the order that
            the columns get.
    """
    lines = []
    names = dict.fromkeys(row.optimizer for of_model in rows.values() for row in of_model)
    variants = [name for name in names if name not in BASELINES]
    for model, of_model in rows.items():
        baselines = [name for name in dict.fromkeys(row.optimizer for row in of_model) if name in BASELINES]
        summaries = summarise(of_model, baselines)
        for steps in sorted({summary.num_training_steps for summary in summaries}):
            by_name = {each.optimizer: each for each in summaries if each.num_training_steps == steps}
            best = by_name[by_name[FIXED].reference]
            rate = "" if best.is_tuning_free else f" at {best.learning_rate:g}"
            rivals = [_cell(by_name[variant], is_rival=True) if variant in by_name else "" for variant in variants]
            lines.append((model, steps, *rivals, _cell(by_name[FIXED]), f"{_cell(best)} ({best.optimizer}{rate})"))
    headers = ("model", "steps", *variants, FIXED, "best baseline")
    return markdown_table(headers, lines, ("left", *["right"] * (len(headers) - 1)))


def _cell(summary: Summary, is_rival: bool = False) -> str:
    loss = mean_with_stderr(summary.loss, summary.loss_stderr)
    if summary.num_diverged:
        loss = f"diverged on {summary.num_diverged} of {summary.num_tasks}"
    return f"{loss}, {summary.wins} of {summary.num_tasks}" if is_rival else loss
