"""What was measured with an L3RS, as it is stored beside the meta-weights in `results.json`."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.connection import is_repo_id
from hf_l3rs.markdown import one_line
from hf_l3rs.validation import Range, check_fields, check_not_empty, short


RESULTS_VERSION = 1
OPTIMIZER_NAME = "L3RS"
UNTRAINED = f"{OPTIMIZER_NAME}, untrained"  # the same network before meta-training

_COUNTS = ("num_training_steps", "num_tasks", "wins", "num_diverged")
_LOSSES = ("loss", "baseline_loss")
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
    """One measurement: an L3RS on one data set for one number of steps, beside the best baseline on the same tasks."""

    optimizer: str  # "L3RS", or "L3RS, untrained"
    dataset: str  # name or path
    split: str
    num_training_steps: int
    num_tasks: int
    loss: float  # mean over the tasks after the last step, in nats; infinity if a run diverged
    command: str  # the shell command that measures it again
    setting: str | None = None  # how the tasks relate to meta-training, such as "in domain"
    hub_id: str | None = None  # of the data set; None if it came from elsewhere
    loss_stderr: float | None = None
    accuracy: float | None = None  # mean, between 0 and 1
    accuracy_stderr: float | None = None
    num_diverged: int | None = None  # tasks on which the run diverged
    baseline: str | None = None  # the best one for runs of this length
    baseline_loss: float | None = None  # infinity if a run diverged
    baseline_accuracy: float | None = None
    wins: int | None = None  # tasks on which the loss is lower than the baseline's
    difference_low: float | None = None  # 95 % interval of the mean paired difference from the baseline's loss
    difference_high: float | None = None
    verdict: str | None = None  # beside the baseline; "level" if the interval holds zero

    def __post_init__(self) -> None:
        check_fields(self, _RULES, error=ArtifactError)
        check_not_empty(self, *(spec.name for spec in fields(self)), error=ArtifactError)
        if self.hub_id is not None and not is_repo_id(self.hub_id):
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
    def task(self) -> tuple[str | int | None, ...]:
        """What was trained for how long, by whatever optimizer."""
        return self.setting, self.shown_dataset, self.split, self.num_training_steps


@dataclass(frozen=True)
class Results:
    """What was measured with the meta-weights of a fingerprint, and what they were seen to do, in a few sentences."""

    fingerprint: str
    entries: tuple[Result, ...]
    behaviour: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, error=ArtifactError)
        if not re.fullmatch("[0-9a-f]{16}", self.fingerprint):
            raise ArtifactError(f"The fingerprint {short(self.fingerprint)} is not 16 hexadecimal digits.")


def merge_results(fingerprint: str, parts: Iterable[Results | None]) -> Results | None:
    """Joins results of the same meta-weights, each measurement once and as measured last; `None` if there are none."""
    entries: dict[tuple[object, ...], Result] = {}
    behaviour = None
    for results in filter(None, parts):
        behaviour = results.behaviour or behaviour
        for entry in results.entries:
            entries[entry.optimizer, entry.task] = entry
    return Results(fingerprint, tuple(entries.values()), behaviour) if entries or behaviour else None


def write_results(results: Results, file: PathLike) -> None:
    """Writes results as JSON: the same bytes for the same results, and never half of a file."""
    entries = [
        {key: _INFINITY if value == math.inf else value for key, value in asdict(entry).items() if value is not None}
        for entry in results.entries
    ]
    content: dict[str, Any] = {"format_version": RESULTS_VERSION, "fingerprint": results.fingerprint}
    content |= {"behaviour": results.behaviour} if results.behaviour else {}
    text = json.dumps({**content, "results": entries}, indent=2, ensure_ascii=False, allow_nan=False)
    write_files(Path(file).parent, {Path(file).name: f"{text}\n".encode()})


def read_results(file: PathLike) -> Results:
    """Reads what [`write_results`] wrote, strictly: no value may be unknown, missing or out of its range."""
    try:
        return _parse(json.loads(Path(file).read_text(encoding="utf-8")))
    except ArtifactError as error:
        reason = one_line(error).rstrip(".")
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror}); give what hf-l3rs evaluate wrote.") from error
    except (ValueError, RecursionError):
        reason = "it is not JSON"
    raise ArtifactError(f"{file} holds no results of an L3RS: {reason}; measure again, or remove the file.")


def _parse(content: Any) -> Results:
    needed = {"format_version", "fingerprint", "results"}
    if not isinstance(content, dict) or not needed <= set(content) <= {*needed, "behaviour"}:
        raise ArtifactError(f"it needs {', '.join(sorted(needed))}, and may have behaviour")
    version, entries = content["format_version"], content["results"]
    if version != RESULTS_VERSION:
        raise ArtifactError(f"format_version is {short(version)}, and this hf_l3rs reads {RESULTS_VERSION}")
    if not isinstance(entries, list):
        raise ArtifactError("results must be a list")
    return Results(content["fingerprint"], tuple(map(_parse_entry, entries)), content.get("behaviour"))


def _parse_entry(entry: Any) -> Result:
    if not isinstance(entry, dict):
        raise ArtifactError(f"{short(entry)} is not an entry")
    missing = [spec.name for spec in fields(Result) if spec.default is MISSING and spec.name not in entry]
    unknown = sorted(set(entry) - {spec.name for spec in fields(Result)})
    if missing or unknown:
        raise ArtifactError(f"an entry lacks {missing[0]!r}" if missing else f"{short(unknown[0])} is unknown")
    return Result(**{**entry, **{name: math.inf for name in _LOSSES if entry.get(name) == _INFINITY}})


def read_results_of(fingerprint: str, file: PathLike, *, strict: bool = False) -> Results | None:
    """Reads the results of these meta-weights; if the file has none of them, `None`, or an error if `strict`."""
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
