"""A comparison as entries of a model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_l3rs.evaluation.baselines import is_tuning_free
from hf_l3rs.evaluation.report import Summary
from hf_l3rs.evaluation.speed_up import SpeedUp
from hf_l3rs.hub.results import Result


def to_results(
    summaries: Sequence[Summary],
    baselines: Sequence[str],
    *,
    dataset: str,
    split: str,
    setting: str,
    command: str,
    hub_id: str | None = None,
) -> list[Result]:
    """
    Turns the summaries into entries of a model card: every optimizer against the best baseline of its horizon.

    Args:
        summaries (`Sequence[Summary]`): Of one comparison.
        baselines (`Sequence[str]`): Names of the tuned optimizers, and of those that need no tuning.
        dataset (`str`): What was evaluated on.
        split (`str`): Split of the evaluation sets.
        setting (`str`): How the tasks relate to meta-training, such as `"in domain"`.
        command (`str`): What measures it again.
        hub_id (`str`, *optional*): Id of the data set on the Hub, if it is there.

    Returns:
        `list[Result]`: For every optimizer that is neither a baseline nor the data limit.
    """
    references = {summary.num_training_steps: summary for summary in summaries if summary.is_reference}
    results = []
    for summary in summaries:
        if summary.optimizer in baselines or summary.is_data_limit:
            continue
        reference = references[summary.num_training_steps]
        results.append(
            Result(
                optimizer=summary.optimizer,
                dataset=dataset,
                hub_id=hub_id,
                split=split,
                num_training_steps=summary.num_training_steps,
                num_tasks=summary.num_tasks,
                loss=summary.loss,
                loss_stderr=None if summary.num_diverged else summary.loss_stderr,
                accuracy=summary.accuracy,
                accuracy_stderr=summary.accuracy_stderr,
                setting=setting,
                baseline=reference.optimizer + ("" if is_tuning_free(reference.optimizer) else ", tuned"),
                baseline_loss=reference.loss,
                baseline_accuracy=reference.accuracy,
                data_limit_loss=summary.data_limit_loss,
                wins=summary.wins,
                command=command,
                num_diverged=summary.num_diverged or None,
                **_ratios(summary.speed_up),
            )
        )
    return results


def _ratios(speed_up: SpeedUp | None) -> dict[str, Any]:
    """The fields of an entry that tell a speed-up; two decimals of it are more than is known."""
    if speed_up is None:
        return {}
    ends = {"step_ratio": speed_up.ratio, "step_ratio_low": speed_up.low, "step_ratio_high": speed_up.high}
    rounded = {name: round(value, 2) for name, value in ends.items() if value is not None}
    return {**rounded, "step_ratio_bound": speed_up.bound}
