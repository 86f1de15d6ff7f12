"""Checks of configuration values, for all dataclasses of settings: what, got, allowed, fix, in one sentence."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from hf_l3rs.errors import ConfigError, L3RSError


# Seeds go into torch generators, which take 64 bits.
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """
    The numbers that a field allows. NaN is never one of them.

    Args:
        low (`float`, *optional*): Least value.
        high (`float`, *optional*): Greatest value.
        above (`float`, *optional*): Values must be greater than this.
        below (`float`, *optional*): Values must be less than this; infinity by default, which rules itself out.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and (self.above < value < self.below)

    def __str__(self) -> str:
        start = f"({self.above:g}" if self.above > -math.inf else f"[{self.low:g}" if self.low > -math.inf else "(-inf"
        end = f"{self.high:g}]" if self.high < math.inf else f"{self.below:g})"
        return f"{start}, {end}"


def check_fields(
    settings: Any,
    rules: Mapping[str, Range | Collection[str]] | None = None,
    *,
    error: type[L3RSError] = ConfigError,
) -> None:
    """
    Checks the types of all fields of a dataclass by their annotations, and the values of some by rules. A list where
    the annotation says tuple becomes one, also in a frozen dataclass, and a whole number where it says float.

    Args:
        settings (dataclass instance): What to check, from its `__post_init__`.
        rules (`Mapping`, *optional*):
            Field names to a [`Range`] of numbers or a collection of allowed strings. For a field that holds several
            values, the rule is for each of them; `None` needs no rule where the annotation allows it.
        error (`type`, *optional*, defaults to [`~hf_l3rs.errors.ConfigError`]): What to raise.

    Raises:
        L3RSError: Of type `error`, for the first value that is not allowed.
    """
    hints = typing.get_type_hints(type(settings))
    rules = rules or {}
    for spec in fields(settings):
        name, value = spec.name, getattr(settings, spec.name)
        label = f"{type(settings).__name__}.{name}"
        try:
            value = _as(hints[name], value)
        except (TypeError, ValueError):
            allowed = _describe(hints[name])
            raise error(f"{label} must be {allowed}, got {_short(value)}.") from None
        object.__setattr__(settings, name, value)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is not None and name in rules:
                _check_rule(label, item, rules[name], error)


def _check_rule(label: str, value: Any, rule: Range | Collection[str], error: type[L3RSError]) -> None:
    if value in rule:
        return
    allowed = f"in {rule}" if isinstance(rule, Range) else f"one of {', '.join(map(str, rule))}"
    raise error(f"{label} must be {allowed}, got {_short(value)}.")


def _as(hint: Any, value: Any) -> Any:
    """Returns the value as the type that a hint names; raises where it is of another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _as_any(arguments, value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError
        return value
    if origin in (list, tuple):
        return _as_sequence(origin, arguments, value)
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise TypeError
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else _finite_float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError
    return value


def _as_any(hints: tuple[Any, ...], value: Any) -> Any:
    for hint in hints:
        try:
            return _as(hint, value)
        except (TypeError, ValueError):
            continue
    raise TypeError


def _as_sequence(origin: type, arguments: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            raise ValueError
        return tuple(map(_as, arguments, value))
    return origin(_as(arguments[0], item) for item in value)


def _finite_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError from None


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (list, tuple):
        count = f"{len(arguments)} values" if origin is tuple and arguments[-1] is not Ellipsis else "values"
        return f"a list of {count}, each {_describe(arguments[0])}, also where it is a single one"
    if origin is dict:
        return "a mapping"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _short(value: Any) -> str:
    """The value as it is shown in a message: on one line, and not endless."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
