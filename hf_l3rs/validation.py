"""Checks of configuration values, for all dataclasses of settings: what, got, allowed, fix, in one sentence."""

from __future__ import annotations

import difflib
import functools
import sys
import types
import typing
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from hf_l3rs.errors import ConfigError, L3RSError


# Of so many choices a message lists all.
MAX_LISTED = 15

# Seeds go into torch generators, which take 64 bits.
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, or between `above` and `below`; no NaN, and infinity only as `high=math.inf`."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        if value != value or (abs(value) > sys.float_info.max and value not in (self.low, self.high)):
            return False
        return not (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )

    def __str__(self) -> str:
        start = f"[{self.low:g}" if self.low is not None else "(-inf" if self.above is None else f"({self.above:g}"
        end = f"{self.high:g}]" if self.high is not None else "inf)" if self.below is None else f"{self.below:g})"
        return f"{start}, {end}"


def check_fields(
    settings: Any,
    rules: Mapping[str, Range | Collection[str]] | None = None,
    *,
    lengths: Mapping[str, Range] | None = None,
    error: type[L3RSError] = ConfigError,
) -> None:
    """
    Checks the fields of a dataclass, from its `__post_init__`: types by annotations, numbers and choices, also each
    in a list, by `rules`, and lists by `lengths`. A list where the annotation says tuple becomes one, and a whole
    number where it says float. Numbers without a rule must be finite.
    """
    hints = _hints(settings.__class__)
    for spec in fields(settings):
        name, value = spec.name, getattr(settings, spec.name)
        label = f"{type(settings).__name__}.{name}"
        is_list = isinstance(value, (list, tuple))
        if is_list and lengths and name in lengths and len(value) not in lengths[name]:
            raise error(f"{label} must have a length in {lengths[name]}, got {len(value)}: {short(value)}.")
        try:
            value = _as(hints[name], value)
        except (TypeError, ValueError, OverflowError):
            raise error(f"{label} must be {_describe(hints[name])}, got {short(value)}.") from None
        object.__setattr__(settings, name, value)
        for item in value if is_list else [value]:
            _check_rule(label, item, (rules or {}).get(name), error)


def check_not_empty(settings: Any, *names: str, error: type[L3RSError] = ConfigError) -> None:
    """Checks that fields of text, or of several texts, are not empty or blank, after [`check_fields`]."""
    for name in names:
        value = getattr(settings, name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                raise error(f"{type(settings).__name__}.{name} must be text that is not empty, got {text!r}.")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The annotations: of many small instances, such as the layers of a model, reading them takes most of the time."""
    return typing.get_type_hints(kind)


def _check_rule(label: str, value: Any, rule: Range | Collection[str] | None, error: type[L3RSError]) -> None:
    if rule is None and isinstance(value, (int, float)):
        rule = Range()
    if value is None or rule is None or value in rule:
        return
    allowed = f"in {rule}" if isinstance(rule, Range) else f"one of {list_choices(rule, value)}"
    raise error(f"{label} must be {allowed}, got {short(value)}.")


def list_choices(choices: Collection[str], value: Any) -> str:
    """Lists choices for a message; of a great many, those that look most like `value`, which is none of them."""
    if len(choices) <= MAX_LISTED:
        return ", ".join(map(str, choices))
    close = difflib.get_close_matches(str(value), choices, n=5, cutoff=0.0)
    return f"{len(choices)} names such as {', '.join(close)}"


def _as(hint: Any, value: Any) -> Any:
    """Returns the value as the type that a hint names; raises where it is of another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for each in arguments:
            with suppress(TypeError, ValueError, OverflowError):
                return _as(each, value)
        raise TypeError
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise TypeError
        if origin is list or arguments[-1] is Ellipsis:
            return origin(_as(arguments[0], item) for item in value)
        return tuple(_as(each, item) for each, item in zip(arguments, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin or hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError
    if hint is str:
        value.encode()  # half of a surrogate pair is no text: it could be neither printed nor written
    return value


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(each) for each in arguments if each is not int or float not in arguments)
    if origin in (list, tuple):
        count = f"{len(arguments)} values" if origin is tuple and arguments[-1] is not Ellipsis else "values"
        return f"a list of {count}, each {_describe(arguments[0])}, also where it is a single one"
    if dict in (origin, hint):
        return "a mapping"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def short(value: Any) -> str:
    """Returns a value as it is shown in a message: on one line, and not endless."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # of a number with thousands of digits, of lists within lists within lists
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= 100 else f"{text[:97]}..."
