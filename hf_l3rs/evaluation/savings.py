"""What an L3RS saves: steps of each run, and the cost of its meta-training after how many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_l3rs.errors import ArtifactError
from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES
from hf_l3rs.evaluation.report import Summary
from hf_l3rs.evaluation.speed_up import steps_for_loss
from hf_l3rs.validation import Range, short


def steps_of_baselines(summaries: Sequence[Summary], baselines: Sequence[str], loss: float) -> float | None:
    """
    Returns how many steps the best baseline needs for a mean loss, each length of run tuned for itself.

    Between the measured lengths it is interpolated, log loss over log steps; `None` if it lies outside of them.
    """
    curve: dict[int, float] = {}
    for summary in summaries:
        if summary.optimizer in baselines:
            steps = summary.num_training_steps
            curve[steps] = min(summary.loss, curve.get(steps, math.inf))
    steps_needed = steps_for_loss(curve, loss)
    return steps_needed if 0 < steps_needed < math.inf else None


def meta_training_cost(meta_training: Mapping[str, Any]) -> float | None:
    """
    Returns what a meta-training cost, in steps of plain fine-tuning.

    Args:
        meta_training (`Mapping`):
            Of an artefact's configuration. `cost_in_plain_steps` weighs differentiated steps by what they cost; where
            it is absent, each of the `inner_steps` counts as a plain one.

    Returns:
        `float` or `None`: `None` if the artefact does not tell.

    Raises:
        ArtifactError: If it tells something that is not a number of steps.
    """
    for name in ("cost_in_plain_steps", "inner_steps"):
        cost = meta_training.get(name)
        if cost is None:
            continue
        if not isinstance(cost, (int, float)) or isinstance(cost, bool) or cost not in Range(low=0):
            raise ArtifactError(
                f"The L3RS has a damaged record of what its meta-training cost: {name} must be a number of at least "
                f"0, got {short(cost)}; meta-train or download it again."
            )
        return cost
    return None


def runs_to_pay_back(
    cost: float, num_training_steps: int, baseline_steps: float | None, num_rates: int = 1
) -> int | None:
    """
    Returns after how many fine-tuning runs meta-training has saved the steps that it cost, if it saves any.

    Args:
        cost (`float`): Of meta-training, in plain steps.
        num_training_steps (`int`): Length of a run with L3RS.
        baseline_steps (`float`, *optional*): Steps that the best baseline needs for the same loss, if they are known.
        num_rates (`int`, *optional*, defaults to 1):
            Learning rates that its user tries on every task; the runs beyond the first have `num_training_steps`, too.
    """
    if baseline_steps is None:
        return None
    saved = baseline_steps - num_training_steps + (num_rates - 1) * num_training_steps
    return math.ceil(cost / saved) if saved > 0 else None


def describe_savings(
    summaries: Sequence[Summary], baselines: Sequence[str], cost: float | None, optimizer: str = "L3RS"
) -> str:
    """
    Says, one line for each length of run, how many steps an L3RS saves, beside which best baseline, and when its
    meta-training is paid back: beside a baseline whose learning rate is known already, and beside a user who tries
    Adam's rates on every new task.

    Args:
        summaries (`Sequence[Summary]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers, and of those that need no tuning.
        cost (`float`, *optional*): Of meta-training, in plain steps, as of [`meta_training_cost`].
        optimizer (`str`, *optional*, defaults to `"L3RS"`): Whose savings.
    """
    lines = []
    for summary in summaries:
        if summary.optimizer != optimizer:
            continue
        if summary.num_diverged:
            lines.append(
                f"- {optimizer} diverged on {summary.num_diverged} of {summary.num_tasks} tasks in runs of "
                f"{summary.num_training_steps} steps."
            )
            continue
        needed = steps_of_baselines(summaries, baselines, summary.loss)
        best = f"the best baseline ({summary.reference} at this length)"
        line = f"- After {summary.num_training_steps} steps {optimizer} is where {best} is after "
        line += "a number of steps that was not measured" if needed is None else f"{needed:.0f}"
        lines.append(f"{line}{_describe_payback(summary, needed, cost)}.")
    return "\n".join(lines)


def _describe_payback(summary: Summary, needed: float | None, cost: float | None) -> str:
    if not cost:
        return ""
    steps, num_rates = summary.num_training_steps, len(ADAPTIVE_RATES)
    if needed is None and summary.ratio <= 1:
        needed = steps  # at least; that many more are not known
    tuned, trying = (runs_to_pay_back(cost, steps, needed, rates) for rates in (1, num_rates))
    beside = []
    if tuned:
        beside.append(f"{tuned:,} runs beside that baseline, whose learning rate is taken as known")
    if trying:
        beside.append(f"{trying:,} runs beside a user who tries Adam's {num_rates} learning rates on every new task")
    if not beside:
        return ""
    return f"; meta-training, worth {cost:,.0f} plain steps, is paid back after {', and after '.join(beside)}"
