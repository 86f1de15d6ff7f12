"""Whether two splits of a data set may have images in common."""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple


# A slice of a split, as `datasets` writes it: `train[:10%]`, `train[100:-100]`, `train[:33%](pct1_dropremainder)`.
_BOUND = r"-?\d+(?:_\d+)*%?"
_SLICE = re.compile(rf"(?P<name>[\w.]+)\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\](?P<rounding>\(.*\))?")


class _Slice(NamedTuple):
    """Rows from `start` to `stop`, counted in `unit`; `None` is an end of the split."""

    name: str
    start: int | None = None
    stop: int | None = None
    unit: str = ""


def splits_overlap(one: str, other: str) -> bool:
    """
    Returns whether two splits may have images in common, as far as their names tell: slices of one split overlap
    unless one ends where the other starts, or before, in the same unit and counted from the same end.

    Args:
        one (`str`): As `datasets` writes it, such as `"train"`, `"train[:80%]"` or `"train[100:]+test"`.
        other (`str`): The same.
    """
    slices = ([_parse(part.strip()) for part in split.split("+")] for split in (one, other))
    return any(_overlap(first, second) for first, second in product(*slices))


def _parse(text: str) -> _Slice:
    match = _SLICE.fullmatch(text)
    if match is None:  # all of a split, or what datasets will refuse
        return _Slice(text.partition("[")[0].partition("(")[0])
    start, stop = (int(match[side].rstrip("%")) if match[side] else None for side in ("start", "stop"))
    return _Slice(match["name"], start, stop, f"{'%' * ('%' in text)}{match['rounding']}")


def _overlap(one: _Slice, other: _Slice) -> bool:
    if one.name != other.name:
        return "all" in (one.name, other.name)
    return one.unit != other.unit or not (_ends_before(one, other) or _ends_before(other, one))


def _ends_before(one: _Slice, other: _Slice) -> bool:
    if one.stop is None or other.start is None:
        return False
    return (one.stop < 0) == (other.start < 0) and one.stop <= other.start
