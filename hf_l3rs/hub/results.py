"""What was measured with an L3RS, as it is stored beside the meta-weights in `results.json`."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.markdown import one_line
from hf_l3rs.validation import Range, check_fields, check_not_empty, short


RESULTS_VERSION = 1
OPTIMIZER_NAME = "L3RS"
UNTRAINED = f"{OPTIMIZER_NAME}, untrained"  # the same network before meta-training
HUB_ID = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)

_COUNTS = ("num_training_steps", "num_tasks", "wins", "num_diverged")
_LOSSES = ("loss", "baseline_loss")  # infinite where a run diverged
_RULES: dict[str, Range | tuple[str, ...]] = {
    **dict.fromkeys((*_COUNTS, "loss_stderr", "accuracy_stderr"), Range(low=0)),
    "verdict": ("ahead", "level", "behind"),
    **dict.fromkeys(("accuracy", "baseline_accuracy"), Range(low=0, high=1)),
    **dict.fromkeys(_LOSSES, Range(low=0, high=math.inf)),
}
_INFINITY = "infinity"  # which JSON does not have

logger = logging.getLogger(__name__)


def last_part(path: str) -> str:
    """Returns the last part of a path, or a name as it is."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


@dataclass(frozen=True)
class Result:
    """
    One measurement: an L3RS on one data set for one number of steps, beside the best baseline on the same tasks.

    Args:
        optimizer (`str`): `"L3RS"`, or `"L3RS, untrained"` for the same network before meta-training.
        dataset (`str`): Name of the data. Of a path, the card shows the last part.
        split (`str`): Split that loss and accuracy are of.
        num_training_steps (`int`): Optimizer steps of each run.
        num_tasks (`int`): Runs that the means are over.
        loss (`float`): Mean loss after the last step, in nats; infinity if a run diverged.
        command (`str`): The shell command that measures it again.
        setting (`str`, *optional*): How the tasks relate to meta-training, such as `"in domain"`.
        hub_id (`str`, *optional*): Id of the data set on the Hub; `None` if it came from elsewhere.
        loss_stderr (`float`, *optional*): Standard error of `loss` over tasks.
        accuracy (`float`, *optional*): Mean accuracy, between 0 and 1.
        accuracy_stderr (`float`, *optional*): Standard error of `accuracy` over tasks.
        num_diverged (`int`, *optional*): Tasks on which the run diverged; none by default.
        baseline (`str`, *optional*): The best baseline of runs of this length.
        baseline_loss (`float`, *optional*): Its mean loss; infinity if a run diverged.
        baseline_accuracy (`float`, *optional*): Its mean accuracy.
        wins (`int`, *optional*): Tasks on which the loss is lower than the baseline's.
        difference_low (`float`, *optional*):
            Lower end of the 95 % interval of the mean difference, `loss` less the baseline's, in pairs over tasks.
        difference_high (`float`, *optional*): Upper end.
        verdict (`str`, *optional*): `"ahead"` or `"behind"` of the baseline, or `"level"` if the interval holds zero.

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
    hub_id: str | None = None
    loss_stderr: float | None = None
    accuracy: float | None = None
    accuracy_stderr: float | None = None
    num_diverged: int | None = None
    baseline: str | None = None
    baseline_loss: float | None = None
    baseline_accuracy: float | None = None
    wins: int | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: str | None = None

    def __post_init__(self) -> None:
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


@dataclass(frozen=True)
class Results:
    """
    What was measured with one set of meta-weights.

    Args:
        fingerprint (`str`): [`~hf_l3rs.L3RSNetwork.fingerprint`] of the meta-weights that were measured.
        entries (`tuple[Result, ...]`): In the order of the card's table.
        behaviour (`str`, *optional*): What it was seen to do, in a few sentences.
    """

    fingerprint: str
    entries: tuple[Result, ...]
    behaviour: str | None = None


def merge_results(fingerprint: str, parts: Iterable[Results | None]) -> Results | None:
    """Joins results of the same meta-weights, each measurement once and as measured last; `None` if there are none."""
    entries: dict[tuple[object, ...], Result] = {}
    behaviour = None
    for results in filter(None, parts):
        behaviour = results.behaviour or behaviour
        for entry in results.entries:
            entries[entry.optimizer, entry.setting, entry.shown_dataset, entry.split, entry.num_training_steps] = entry
    return Results(fingerprint, tuple(entries.values()), behaviour) if entries or behaviour else None


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
    text = json.dumps({**content, "results": entries}, indent=2, ensure_ascii=False, allow_nan=False)
    write_files(Path(file).parent, {Path(file).name: f"{text}\n".encode()})


def read_results(file: PathLike) -> Results:
    """
    Reads what [`write_results`] wrote, strictly.

    Raises:
        ArtifactError: If the file is unreadable, of another format, or an entry has an unknown, missing or bad value.
    """

    def refuse(why: str) -> ArtifactError:
        return ArtifactError(f"{file} holds no results of an L3RS: {why}; measure again, or remove the file.")

    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror}); give what hf-l3rs evaluate wrote.") from error
    except (ValueError, RecursionError) as error:
        raise refuse("it is not JSON") from error
    parts = {"format_version", "fingerprint", "results"}
    if not isinstance(content, Mapping) or not parts <= set(content) <= {*parts, "behaviour"}:
        raise refuse(f"it needs {', '.join(sorted(parts))}, and may have behaviour")
    if content["format_version"] != RESULTS_VERSION:
        raise refuse(f"format_version is {short(content['format_version'])}, and this hf_l3rs reads {RESULTS_VERSION}")
    fingerprint, behaviour, entries = content["fingerprint"], content.get("behaviour"), content["results"]
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{16}", fingerprint):
        raise refuse(f"the fingerprint {short(fingerprint)} is not 16 hexadecimal digits")
    if not isinstance(entries, list) or not isinstance(behaviour, str | None):
        raise refuse("results must be a list and behaviour a text")
    try:
        return Results(fingerprint, tuple(map(_read_entry, entries)), behaviour)
    except ArtifactError as error:
        raise refuse(one_line(error).rstrip(".")) from error


def _read_entry(entry: Any) -> Result:
    if not isinstance(entry, Mapping):
        raise ArtifactError(f"{short(entry)} is not an entry")
    missing = [spec.name for spec in fields(Result) if spec.default is MISSING and spec.name not in entry]
    unknown = sorted(set(entry) - {spec.name for spec in fields(Result)})
    if missing or unknown:
        raise ArtifactError(
            f"an entry lacks {missing[0]!r}" if missing else f"{short(unknown[0])} is an unknown field"
        )
    return Result(**{**entry, **{name: math.inf for name in _LOSSES if entry.get(name) == _INFINITY}})


def read_results_of(fingerprint: str, file: PathLike, *, strict: bool = False) -> Results | None:
    """
    Reads results of certain meta-weights; others must not be shown as if they were theirs.

    Args:
        fingerprint (`str`): Of the meta-weights.
        file (`str` or `os.PathLike`): What [`write_results`] wrote.
        strict (`bool`, *optional*, defaults to `False`): Whether an absent file, and results of others, raise.

    Returns:
        [`Results`] or `None`: `None` if there are none of these.

    Raises:
        ArtifactError: If the file is not a file of results.
    """
    if not strict and not os.path.isfile(file):  # also of a name that no file can have
        return None
    results = read_results(file)
    if results.fingerprint == fingerprint:
        return results
    message = f"{file} was measured with meta-weights {results.fingerprint}, but these are {fingerprint}"
    if strict:
        raise ArtifactError(f"{message}; measure again, or leave the file out.")
    logger.warning("%s; the card leaves it out.", message)
    return None
