"""What an L3RS does on models that it never saw, untouched and after warm starts, beside baselines: a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.report import Summary, describe_loss, summarise
from hf_l3rs.evaluation.rows import Row
from hf_l3rs.markdown import markdown_table


UNTOUCHED = "untouched"
# Shown for each model, as what somebody would take who knows nothing of it.
FIXED = "Adam at 1e-3"


def to_table(rows: Mapping[str, Sequence[Row]]) -> str:
    """
    Returns a line for each model and length of run: every variant of the L3RS, with the tasks on which its loss is
    lower than the best baseline's, then Adam at 1e-3, then the best baseline by name.

    Args:
        rows (`Mapping[str, Sequence[Row]]`):
            By model. `optimizer` names a baseline or else a variant, in the order that the columns get.
    """
    names = dict.fromkeys(row.optimizer for of_model in rows.values() for row in of_model)
    variants = [name for name in names if name not in BASELINES]
    lines = []
    for model, of_model in rows.items():
        baselines = [name for name in dict.fromkeys(row.optimizer for row in of_model) if name in BASELINES]
        summaries = summarise(of_model, baselines)
        for steps in sorted({summary.num_training_steps for summary in summaries}):
            by_name = {each.optimizer: each for each in summaries if each.num_training_steps == steps}
            ours = [_with_wins(by_name[name]) if name in by_name else "" for name in variants]
            fixed = describe_loss(by_name[FIXED]) if FIXED in by_name else ""
            (best,) = (each for each in by_name.values() if each.is_reference)
            lines.append((model, steps, *ours, fixed, _with_name(best)))
    headers = ("model", "steps", *variants, FIXED, "best baseline")
    return markdown_table(headers, lines, ("left", *["right"] * (len(headers) - 1)))


def _with_wins(summary: Summary) -> str:
    return f"{describe_loss(summary)}, {summary.wins} of {summary.num_tasks}"


def _with_name(baseline: Summary) -> str:
    rate = "" if baseline.is_tuning_free else f" at {baseline.learning_rate:g}"
    return f"{describe_loss(baseline)} ({baseline.optimizer}{rate})"
