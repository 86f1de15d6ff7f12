"""What was measured with an L3RS, as it is stored beside the meta-weights: one entry a line of the card's table."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.provenance import HUB_ID, last_part
from hf_l3rs.markdown import one_line
from hf_l3rs.validation import Range, check_fields, check_not_empty, short


RESULTS_VERSION = 1
OPTIMIZER_NAME = "L3RS"

# Least gap between a baseline and the data limit, in the baseline's loss: shares of less are noise.
LEAST_GAP = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """
    One measurement: an optimizer on one data set for one number of steps.

    Args:
        optimizer (`str`): What was measured. Only `"L3RS"` enters the card's model index.
        dataset (`str`): Name of the data. Of a path, the card shows the last part.
        split (`str`): Split that loss and accuracy are of.
        num_training_steps (`int`): Optimizer steps of each run.
        num_tasks (`int`): Runs that the means are over.
        loss (`float`): Mean loss after the last step, in nats; infinity if a run diverged.
        command (`str`): The shell command that measures it again.
        setting (`str`, *optional*): How the tasks relate to meta-training, such as `"in domain"`.
        loss_stderr (`float`, *optional*): Standard error of `loss` over tasks.
        accuracy (`float`, *optional*): Mean accuracy, between 0 and 1.
        accuracy_stderr (`float`, *optional*): Standard error of `accuracy` over tasks.
        baseline (`str`, *optional*): The optimizer that it is compared with, on the same tasks and steps.
        baseline_loss (`float`, *optional*): Mean loss of the baseline; infinity if a run diverged.
        baseline_accuracy (`float`, *optional*): Mean accuracy of the baseline.
        wins (`int`, *optional*): Tasks on which the loss is lower than the baseline's.
        step_ratio (`float`, *optional*):
            Steps of the best baseline for the same loss, divided by `num_training_steps`: 2.0 is half the steps.
        step_ratio_low (`float`, *optional*):
            Lower end of its 95 % interval over resampled tasks; absent where it lies below what was measured.
        step_ratio_high (`float`, *optional*): Upper end; absent where it lies beyond what was measured.
        step_ratio_bound (`str`, *optional*):
            `"at least"` if baselines never get to the loss in their longest runs, `"at most"` if they are there after
            their shortest.
        hub_id (`str`, *optional*): Id of the data set on the Hub; `None` if it came from elsewhere.
        num_diverged (`int`, *optional*): Tasks on which the run diverged; none by default.
        difference_low (`float`, *optional*):
            Lower end of the 95 % interval of the mean difference to the baseline's loss, in pairs over tasks.
        difference_high (`float`, *optional*): Upper end.
        verdict (`str`, *optional*): `"ahead"` or `"behind"` of the baseline, or `"level"` if the interval holds zero.
        data_limit_loss (`float`, *optional*):
            Mean loss where the run's own batches may be revisited many times; infinity if such a run diverged.

    Raises:
        ArtifactError: If a value is of a wrong type or out of its range.
    """

    optimizer: str
    dataset: str
    split: str
    num_training_steps: int
    num_tasks: int
    loss: float
    command: str
    setting: str | None = None
    loss_stderr: float | None = None
    accuracy: float | None = None
    accuracy_stderr: float | None = None
    baseline: str | None = None
    baseline_loss: float | None = None
    baseline_accuracy: float | None = None
    wins: int | None = None
    step_ratio: float | None = None
    hub_id: str | None = None
    num_diverged: int | None = None
    data_limit_loss: float | None = None
    step_ratio_low: float | None = None
    step_ratio_high: float | None = None
    step_ratio_bound: str | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: str | None = None

    def __post_init__(self) -> None:
        for name in ("accuracy", "baseline_accuracy"):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value > 1:
                raise ArtifactError(
                    f"Result.{name} must lie between 0 and 1, got {short(value)}; do not store percent."
                )
        check_fields(self, _RULES, error=ArtifactError)
        check_not_empty(self, *(spec.name for spec in fields(self)), error=ArtifactError)
        if self.hub_id is not None and not HUB_ID.fullmatch(self.hub_id):
            raise ArtifactError(f'Result.hub_id must be an id of the form "user/name", got {short(self.hub_id)}.')
        for name in ("wins", "num_diverged"):
            count = getattr(self, name)
            if count is not None and count > self.num_tasks:
                raise ArtifactError(f"Result.{name} must be at most num_tasks={self.num_tasks}, got {count}.")

    @property
    def shown_dataset(self) -> str:
        """What a card calls the data: the Hub id, or a name without the way to it."""
        return self.hub_id or last_part(self.dataset)

    @property
    def gap_closed(self) -> float | None:
        """How far the loss is on the way from the baseline's, 0, to the data limit, 1, if all three are known."""
        return gap_closed(self.loss, self.baseline_loss, self.data_limit_loss)

    @property
    def speed_up(self) -> str:
        """The step ratio with its interval, as text; empty if it is not known."""
        return describe_speed_up(self.step_ratio, self.step_ratio_low, self.step_ratio_high, self.step_ratio_bound)


def gap_closed(loss: float, baseline_loss: float | None, data_limit_loss: float | None) -> float | None:
    """
    Returns the share of the gap between a baseline and the data limit that an optimizer closes.

    Args:
        loss (`float`): Mean loss of the optimizer.
        baseline_loss (`float`, *optional*): Of the best tuned baseline.
        data_limit_loss (`float`, *optional*): Of many passes over the same batches.

    Returns:
        `float` or `None`: 1 at the data limit, 0 where the baseline is, negative above. `None` if a loss is not known
        or infinite, or if the limit is less than `LEAST_GAP` below the baseline: there is no gap to close.
    """
    if baseline_loss is None or data_limit_loss is None or math.inf in (loss, baseline_loss):
        return None
    gap = baseline_loss - data_limit_loss
    return (baseline_loss - loss) / gap if gap > LEAST_GAP * baseline_loss else None


def describe_speed_up(ratio: float | None, low: float | None, high: float | None, bound: str | None) -> str:
    """
    Returns a speed-up as text, such as `"2.10 (1.80 to 2.50)"`, `"≥ 5.00 (≥ 3.20)"` where baselines never get to the
    loss, and an empty text without one.
    """
    if ratio is None:
        return ""
    if low is not None and high is not None:
        interval = f" ({low:.2f} to {high:.2f})"
    elif low is not None or high is not None:
        interval = f" (≥ {low:.2f})" if low is not None else f" (≤ {high:.2f})"
    else:
        interval = ""
    return f"{_SIGNS[bound]}{ratio:.2f}{interval}"


_COUNTS = ("num_training_steps", "num_tasks", "wins", "num_diverged")
_LOSSES = ("loss", "baseline_loss", "data_limit_loss")  # infinite where a run diverged
_RATIOS = ("step_ratio", "step_ratio_low", "step_ratio_high")
_SIGNS = {"at least": "≥ ", "at most": "≤ ", None: ""}
_RULES: dict[str, Range | tuple[str, ...]] = {
    **dict.fromkeys((*_COUNTS, *_RATIOS, "loss_stderr", "accuracy_stderr"), Range(low=0)),
    "step_ratio_bound": ("at least", "at most"),
    "verdict": ("ahead", "level", "behind"),
    **dict.fromkeys(("accuracy", "baseline_accuracy"), Range(low=0, high=1)),
    **dict.fromkeys(_LOSSES, Range(low=0, high=math.inf)),
}
# JSON has no infinity.
_INFINITY = "infinity"


@dataclass(frozen=True)
class Results:
    """
    What was measured with one set of meta-weights; stored as `results.json` beside them.

    Args:
        fingerprint (`str`): [`~hf_l3rs.L3RSNetwork.fingerprint`] of the meta-weights that were measured.
        entries (`tuple[Result, ...]`): In the order of the card's table.
        behaviour (`str`, *optional*): What it was seen to do, in a few sentences.
    """

    fingerprint: str
    entries: tuple[Result, ...]
    behaviour: str | None = None


def write_results(results: Results, file: PathLike) -> None:
    """
    Writes results as JSON: the same bytes for the same results, and never half of a file.

    Raises:
        StorageError: If the file cannot be written.
    """
    entries = [
        {key: _INFINITY if value == math.inf else value for key, value in asdict(entry).items() if value is not None}
        for entry in results.entries
    ]
    content: dict[str, Any] = {"format_version": RESULTS_VERSION, "fingerprint": results.fingerprint}
    content |= {"behaviour": results.behaviour} if results.behaviour else {}
    content["results"] = entries
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    file = Path(file)
    write_files(file.parent, {file.name: f"{text}\n".encode()})


def read_results(file: PathLike) -> Results:
    """
    Reads what [`write_results`] wrote, strictly.

    Raises:
        ArtifactError: If the file is unreadable, of a newer format, or an entry has an unknown, missing or bad value.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read ({error.strerror}); give a file that hf-l3rs evaluate wrote."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read as JSON; measure again, or remove the file.") from error
    parts = ("format_version", "fingerprint", "results")
    if (
        not isinstance(content, Mapping)
        or not set(parts) <= set(content) <= {*parts, "behaviour"}
        or not isinstance(content["results"], list)
        or not isinstance(content.get("behaviour", ""), str)
    ):
        raise ArtifactError(
            f"{file} must hold exactly {', '.join(parts)} and, if it is known, a text on behaviour; write it with "
            "hf_l3rs's write_results."
        )
    if content["format_version"] != RESULTS_VERSION:
        raise ArtifactError(
            f"{file} has format_version {short(content['format_version'])}, but the installed hf_l3rs reads "
            f"{RESULTS_VERSION}; upgrade it with `pip install -U hf_l3rs`."
        )
    fingerprint = content["fingerprint"]
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{16}", fingerprint):
        raise ArtifactError(
            f"{file} has the fingerprint {short(fingerprint)}, not 16 hexadecimal digits; measure again, or remove "
            "the file."
        )
    entries = tuple(_read_entry(entry, index, file) for index, entry in enumerate(content["results"]))
    return Results(fingerprint, entries, content.get("behaviour"))


def _read_entry(entry: Any, index: int, file: PathLike) -> Result:
    def refuse(why: str) -> ArtifactError:
        return ArtifactError(f"Entry {index} of {file} is not a result: {why}; measure again, or remove the file.")

    if not isinstance(entry, Mapping):
        raise refuse(f"it must be a mapping, got {short(entry)}")
    missing = [spec.name for spec in fields(Result) if spec.default is MISSING and spec.name not in entry]
    unknown = sorted(set(entry) - {spec.name for spec in fields(Result)})
    if missing or unknown:
        raise refuse(f"it lacks {missing[0]!r}" if missing else f"it has an unknown field {short(unknown[0])}")
    infinite = {name: math.inf for name in _LOSSES if entry.get(name) == _INFINITY}
    try:
        return Result(**{**entry, **infinite})
    except ArtifactError as error:
        raise refuse(one_line(error).rstrip(".")) from error


def read_results_of(fingerprint: str, file: Path, *, strict: bool = False) -> Results | None:
    """
    Reads results if there are any of certain meta-weights; others must not be shown as if they were theirs.

    Args:
        fingerprint (`str`): Of the meta-weights.
        file (`Path`): What [`write_results`] wrote, if it is there.
        strict (`bool`, *optional*, defaults to `False`): Whether results of others raise, or are left out.

    Raises:
        ArtifactError: If the file is not a file of results.
    """
    if not os.path.isfile(file):  # also of a name that no file can have
        return None
    results = read_results(file)
    if results.fingerprint == fingerprint:
        return results
    message = f"{file} was measured with meta-weights {results.fingerprint}, but these are {fingerprint}"
    if strict:
        raise ArtifactError(f"{message}; measure again, or remove the file.")
    logger.warning("%s; the card leaves it out.", message)
    return None
