"""Checks of settings: every wrong type or value is told in one sentence, and what is right is left as it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from hf_l3rs.errors import ArtifactError, ConfigError, L3RSError
from hf_l3rs.validation import MAX_SEED, Range, check_fields, check_not_empty, short


@dataclass
class Inner:
    size: int = 1

    def __post_init__(self):
        check_fields(self, {"size": Range(low=1)})


@dataclass(frozen=True)
class Settings:
    """One field of every kind."""

    whole: int = 1
    number: float = 0.5
    text: str = "a"
    flag: bool = False
    maybe: float | None = None
    either: int | float = 1
    literal: Literal["x", "y"] = "x"
    names: list[str] = field(default_factory=list)
    sizes: tuple[int, ...] = (1,)
    pair: tuple[float, float] = (0.0, 1.0)
    values: list[float] | None = None
    mapping: dict[str, Any] = field(default_factory=dict)
    anything: Any = None
    function: Callable[[], None] | None = None
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)

    def __post_init__(self):
        check_fields(
            self,
            {
                "whole": Range(low=1, high=9),
                "maybe": Range(above=0, below=1),
                "text": ("a", "b"),
                "names": {"c": 1, "d": 2},
                "sizes": Range(low=1),
                "pair": Range(low=0, high=math.inf),
            },
            lengths={"sizes": Range(low=1, high=3), "values": Range(high=2)},
        )


VALID = [
    ("whole", 9),
    ("number", -1e300),
    ("text", "b"),
    ("flag", True),
    ("maybe", 0.5),
    ("maybe", None),
    ("either", 1.5),
    ("literal", "y"),
    ("names", ["c", "d"]),
    ("sizes", (1, 2, 3)),
    ("pair", (0.0, math.inf)),
    ("values", None),
    ("values", []),
    ("mapping", {"a": 1}),
    ("anything", int),
    ("function", print),
    ("inner", Inner(3)),
    ("inners", [Inner(), Inner()]),
]


@pytest.mark.parametrize("name, value", VALID, ids=str)
def test_what_is_right_stays_as_it_is(name, value):
    kept = getattr(Settings(**{name: value}), name)
    assert kept == value and type(kept) is type(value)


@pytest.mark.parametrize(
    "name, value, kept",
    [
        ("number", 2, 2.0),
        ("maybe", 0.25, 0.25),
        ("either", 2, 2),
        ("sizes", [1, 2], (1, 2)),
        ("pair", [0, 1], (0.0, 1.0)),
        ("names", ("c",), ["c"]),
        ("values", [1, 2.5], [1.0, 2.5]),
    ],
)
def test_what_is_meant_the_same_becomes_the_same(name, value, kept):
    result = getattr(Settings(**{name: value}), name)
    assert result == kept
    assert repr(result) == repr(kept)


HUGE = 10**5000  # has no text

INVALID = [
    ("whole", 0, "in [1, 9], got 0"),
    ("whole", 10, "in [1, 9], got 10"),
    ("whole", 1.0, "a whole number, got 1.0"),
    ("whole", True, "a whole number, got True"),
    ("whole", "1", "a whole number, got '1'"),
    ("whole", None, "a whole number, got None"),
    ("whole", HUGE, "too long to show"),
    ("number", math.nan, "in (-inf, inf), got nan"),
    ("number", math.inf, "got inf"),
    ("number", -math.inf, "got -inf"),
    ("number", HUGE, "a number, got a int that is too long to show"),
    ("number", True, "a number, got True"),
    ("number", "0.5", "a number, got '0.5'"),
    ("number", None, "a number, got None"),
    ("text", "c", "one of a, b, got 'c'"),
    ("text", 3, "text, got 3"),
    ("text", "\ud800", "text, got '\\ud800'"),
    ("text", b"a", "text, got b'a'"),
    ("flag", 1, "true or false, got 1"),
    ("flag", "no", "true or false, got 'no'"),
    ("flag", None, "true or false, got None"),
    ("maybe", 0, "in (0, 1), got 0.0"),
    ("maybe", 1.0, "in (0, 1), got 1.0"),
    ("maybe", "x", "a number or null, got 'x'"),
    ("either", "x", "must be a number, got 'x'"),
    ("either", math.nan, "got nan"),
    ("either", 10**400, "in (-inf, inf)"),
    ("literal", "z", "one of x, y, got 'z'"),
    ("names", "c", "a list of values, each text, also where it is a single one, got 'c'"),
    ("names", ["e"], "one of c, d, got 'e'"),
    ("names", [1], "each text"),
    ("names", {"c": 1}, "a list"),
    ("names", None, "a list"),
    ("sizes", 32, "a list of values, each a whole number, also where it is a single one, got 32"),
    ("sizes", [0], "in [1, inf), got 0"),
    ("sizes", [], "a length in [1, 3], got 0"),
    ("sizes", [1] * 10**5, "a length in [1, 3], got 100000"),
    ("sizes", [1.5], "each a whole number"),
    ("pair", [0.1], "a list of 2 values, each a number"),
    ("pair", [0.1, 0.2, 0.3], "a list of 2 values"),
    ("pair", [0.1, math.nan], "in [0, inf], got nan"),
    ("pair", [0.1, -math.inf], "got -inf"),
    ("values", [1, math.nan], "got nan"),
    ("values", [1, 2, 3], "a length in (-inf, 2], got 3"),
    ("mapping", [1], "a mapping, got [1]"),
    ("mapping", None, "a mapping, got None"),
    ("function", "print", "got 'print'"),
    ("inner", 3, "Inner, got 3"),
    ("inners", [3], "a list of values, each Inner"),
]


@pytest.mark.parametrize(
    "name, value, words", INVALID, ids=[f"{name} {short(value)[:30]}" for name, value, _ in INVALID]
)
def test_what_is_wrong_is_told_in_one_sentence(name, value, words):
    with pytest.raises(ConfigError) as error:
        Settings(**{name: value})
    message = str(error.value)
    assert message.startswith(f"Settings.{name} must ")
    assert words in message
    assert message.endswith(".") and message.isprintable() and len(message) < 300
    assert isinstance(error.value, ValueError)


def test_the_error_is_of_the_kind_asked_for():
    @dataclass
    class Entry:
        size: int

        def __post_init__(self):
            check_fields(self, error=ArtifactError)

    with pytest.raises(ArtifactError, match=r"Entry\.size must be a whole number"):
        Entry("x")


@pytest.mark.parametrize(
    "bounds, inside, outside, text",
    [
        ({}, [0, -1e300, 1e300, 10**300], [math.inf, -math.inf, math.nan, 10**400, HUGE, -HUGE], "(-inf, inf)"),
        ({"low": 0}, [0, 1e300], [-1e-300, math.inf, math.nan], "[0, inf)"),
        ({"low": 0, "high": math.inf}, [0, math.inf], [-1, -math.inf, math.nan], "[0, inf]"),
        ({"low": 0, "high": 1}, [0, 0.5, 1], [-0.1, 1.1, math.nan], "[0, 1]"),
        ({"above": 0, "below": 1}, [0.5], [0, 1, math.nan], "(0, 1)"),
        ({"low": 0, "below": 1}, [0], [1], "[0, 1)"),
        ({"above": 0, "high": 1}, [1], [0], "(0, 1]"),
        ({"low": 0, "high": MAX_SEED}, [0, MAX_SEED], [MAX_SEED + 1, -1], "[0, 9.22337e+18]"),
    ],
)
def test_ranges(bounds, inside, outside, text):
    allowed = Range(**bounds)
    assert str(allowed) == text
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


def test_values_are_shown_short_and_on_one_line():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("a\nb", "x" * 1000, HUGE, nested, list(range(10**5)), "\x1b[31m"):
        assert len(short(value)) <= 100
        assert short(value).isprintable()
    assert short([1, "a"]) == "[1, 'a']"
    while nested:  # or its destruction exhausts the stack
        nested = nested.pop()


def test_every_error_is_also_a_builtin_one():
    assert issubclass(ConfigError, L3RSError) and issubclass(ConfigError, ValueError)


@dataclass
class Texts:
    name: str = ""
    place: str | None = None


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_text_that_must_not_be_empty(text):
    with pytest.raises(ArtifactError, match=r"^Texts.place must be text that is not empty, got '.*'\.$"):
        check_not_empty(Texts(place=text), "place", error=ArtifactError)
    check_not_empty(Texts(), "place")
