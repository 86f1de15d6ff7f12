"""Which images meta-training saw, so that an evaluation can refuse to draw them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hf_l3rs.errors import ArtifactError, ConfigError, DataError
from hf_l3rs.tasks.task_arguments import ROLES, DatasetArguments, TaskArguments
from hf_l3rs.validation import check_fields


logger = logging.getLogger(__name__)

# The roles that tasks are made of. The other ROLES choose the best weights, or learning rates.
_TASK_ROLES = ("batches", "evaluation")

# A slice of a split, as `datasets` writes it: `train[:10%]`, `train[100:-100]`, `train[:33%](pct1_dropremainder)`.
_BOUND = r"-?\d+(?:_\d+)*%?"
_SLICE = re.compile(rf"(?P<name>[\w.]+)\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\](?P<rounding>\(.*\))?")


@dataclass(frozen=True)
class SeenData:
    """One data set as a run draws from it: the record of an artefact."""

    path: str  # as the settings have it
    name: str | None  # configuration of the data set
    hub_id: str | None  # its id on the Hub where `path` is local
    revision: str | None
    splits: dict[str, Any]  # for each of ROLES; `None` where it is a part of the batches' one
    division_seed: int | None  # what a split was divided by, if one was
    classes: list[str | int] | None  # `None` for all
    max_images: int | None
    seen_roles: list[str]  # those of ROLES that are drawn from at all

    def __post_init__(self) -> None:
        check_fields(self, {"seen_roles": ROLES})
        are_names = all(isinstance(split, (str, type(None))) for split in self.splits.values())
        if set(self.splits) != set(ROLES) or not are_names or self.splits["batches"] is None:
            raise ConfigError(f"SeenData.splits must name a split or null for each of {', '.join(ROLES)}.")

    @classmethod
    def of(cls, dataset: DatasetArguments, seed: int, seen_roles: Sequence[str]) -> SeenData:
        """Returns the record of a data set that a run with this seed draws from."""
        own = {
            name: getattr(dataset, name) for name in ("path", "name", "revision", "splits", "classes", "max_images")
        }
        division_seed = seed if None in dataset.splits.values() else None
        return cls(**own, hub_id=dataset.known_as, division_seed=division_seed, seen_roles=list(seen_roles))

    def split(self, role: str) -> str:
        """Returns the split that a role's images come from."""
        return self.splits[role] or self.splits["batches"]


def describe_data(task_args: TaskArguments, seed: int) -> list[dict[str, Any]]:
    """Returns the records for an artefact. Validation images count as seen: they choose the weights that are kept."""
    seen_roles = ROLES if task_args.num_validation_tasks else _TASK_ROLES
    return [asdict(SeenData.of(dataset, seed, seen_roles)) for dataset in task_args.datasets]


def seen_data(meta_training: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns what an artefact's meta-training saw, in all stages; `None` if a stage has no record."""
    records: list[dict[str, Any]] = []
    stage: Any = meta_training
    while stage:
        if not isinstance(stage, Mapping) or not isinstance(stage.get("data"), list):
            return None
        records += stage["data"]
        stage = stage.get("started_from")
    return records or None


def check_unseen(seen: Sequence[Mapping[str, Any]] | None, task_args: TaskArguments, seed: int) -> None:
    """Refuses an evaluation, with this seed, on images that meta-training saw, or may have seen."""
    if seen is None:
        logger.warning(
            "This L3RS does not tell which images it was meta-trained on; whether they are drawn is unknown."
        )
        return
    try:
        records = [SeenData(**entry) for entry in seen]
    except (TypeError, ConfigError) as error:
        raise ArtifactError(
            f"The L3RS has a damaged record of the images that it was meta-trained on ({error}); meta-train or "
            "download it again."
        ) from error
    for dataset, record in product(task_args.datasets, records):
        _check(record, SeenData.of(dataset, seed, _TASK_ROLES))


def _check(seen: SeenData, drawn: SeenData) -> None:
    if not _is_related(seen, drawn) or _has_no_common_class(seen, drawn):
        return
    pairs = product(drawn.seen_roles, seen.seen_roles)
    shared = next((pair for pair in pairs if splits_overlap(drawn.split(pair[0]), seen.split(pair[1]))), None)
    if shared and (seen.name == drawn.name or None in (seen.name, drawn.name)):
        own_role, seen_role = shared
        raise DataError(
            f"The evaluation would draw {own_role} images from {drawn.split(own_role)!r} of {drawn.path!r}, but "
            f"meta-training saw {seen.split(seen_role)!r} ({seen_role}); name splits that it did not see as "
            "batches_split and evaluation_split."
        )
    if shared or Path(seen.path).resolve() != Path(drawn.path).resolve():
        logger.warning(
            "Whether %s (configuration %s) has images of %s (configuration %s), which meta-training saw, cannot be "
            "told from their names.",
            *(drawn.path, drawn.name, seen.path, seen.name),
        )


def _is_related(one: SeenData, other: SeenData) -> bool:
    """Whether two records are of one data set: of the same place or id, or one is a folder in the other."""
    ids = ({name.casefold() for name in (record.path, record.hub_id) if name} for record in (one, other))
    if set.intersection(*ids):
        return True
    first, second = (Path(record.path).resolve() for record in (one, other))
    return first.exists() and second.exists() and (first.is_relative_to(second) or second.is_relative_to(first))


def _has_no_common_class(one: SeenData, other: SeenData) -> bool:
    """Certain only where both name their classes, or both give ids."""
    if one.classes is None or other.classes is None:
        return False
    return len({type(name) for name in one.classes + other.classes}) == 1 and not set(one.classes) & set(other.classes)


def splits_overlap(one: str, other: str) -> bool:
    """
    Returns whether two splits, as `datasets` writes them, may have images in common: slices of one split overlap
    unless one ends where the other starts, or before, in the same unit and counted from the same end.
    """
    return any(_overlap(*parts) for parts in product(one.split("+"), other.split("+")))


def _overlap(one: str, other: str) -> bool:
    (name, unit, start, stop), (other_name, other_unit, other_start, other_stop) = _slice(one), _slice(other)
    if name != other_name:
        return "all" in (name, other_name)
    return unit != other_unit or not (_precedes(stop, other_start) or _precedes(other_stop, start))


def _slice(text: str) -> tuple[str, str, int | None, int | None]:
    """A split's name, the unit that its rows are counted in, and where they start and stop; `None` is an end."""
    match = _SLICE.fullmatch(text.strip())
    if match is None:  # a whole split, or one that datasets will refuse
        return re.split(r"[\[(]", text.strip())[0], "", None, None
    start, stop = (int(match[side].rstrip("%")) if match[side] else None for side in ("start", "stop"))
    return match["name"], f"{'%' * ('%' in text)}{match['rounding'] or ''}", start, stop


def _precedes(stop: int | None, start: int | None) -> bool:
    return stop is not None and start is not None and (stop < 0) == (start < 0) and stop <= start
