"""Checks of settings: every wrong type or value is told in one sentence, and what is right is left as it is."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hf_l3rs.errors import ArtifactError, ConfigError, L3RSError, reason
from hf_l3rs.markdown import markdown_cell, markdown_code, markdown_table, markdown_text, one_line
from hf_l3rs.validation import Range, check_fields, check_not_empty, short


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
    *(("whole", 9), ("number", -1e300), ("text", "b"), ("flag", True), ("maybe", 0.5), ("maybe", None)),
    *(("either", 1.5), ("names", ["c", "d"]), ("sizes", (1, 2, 3)), ("pair", (0.0, math.inf))),
    *(("values", None), ("values", []), ("mapping", {"a": 1}), ("anything", int), ("function", print)),
    *(("inner", Inner(3)), ("inners", [Inner(), Inner()])),
]


@pytest.mark.parametrize(
    "name, value, kept",
    [
        *((name, value, value) for name, value in VALID),
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
    ("whole", 1.0, "a whole number, got 1.0"),
    ("whole", HUGE, "too long to show"),
    ("number", math.nan, "in (-inf, inf), got nan"),
    ("number", HUGE, "a number, got a int that is too long to show"),
    ("text", "c", "one of a, b, got 'c'"),
    ("text", "\ud800", "text, got '\\ud800'"),
    ("flag", 1, "true or false, got 1"),
    ("maybe", 0, "in (0, 1), got 0.0"),
    ("either", "x", "must be a number, got 'x'"),
    ("either", 10**400, "in (-inf, inf)"),
    ("names", "c", "a list of values, each text, also where it is a single one, got 'c'"),
    ("names", ["e"], "one of c, d, got 'e'"),
    ("sizes", 32, "a list of values, each a whole number, also where it is a single one, got 32"),
    ("sizes", [0], "in [1, inf), got 0"),
    ("sizes", [], "a length in [1, 3], got 0"),
    ("sizes", [1] * 10**5, "a length in [1, 3], got 100000"),
    ("pair", [0.1], "a list of 2 values, each a number"),
    ("pair", [0.1, math.nan], "in [0, inf], got nan"),
    ("values", [1, 2, 3], "a length in (-inf, 2], got 3"),
    ("mapping", [1], "a mapping, got [1]"),
    ("function", "print", "got 'print'"),
    ("inners", [3], "a list of values, each Inner"),
]


@pytest.mark.parametrize(
    "name, value, words", INVALID, ids=[f"{name} {short(value)[:30]}" for name, value, _ in INVALID]
)
def test_what_is_wrong_is_told_in_one_sentence(name, value, words):
    with pytest.raises(ConfigError) as error:
        Settings(**{name: value})
    message = str(error.value)
    assert message.startswith(f"Settings.{name} must ") and words in message
    assert message.endswith(".") and message.isprintable() and len(message) < 300
    assert isinstance(error.value, (L3RSError, ValueError))


def test_values_are_shown_short_and_on_one_line():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("a\nb", "x" * 1000, HUGE, nested, list(range(10**5)), "\x1b[31m"):
        assert len(short(value)) <= 100 and short(value).isprintable()
    while nested:  # or its destruction exhausts the stack
        nested = nested.pop()


@dataclass
class Texts:
    name: str = ""
    place: str | None = None
    names: list[str] = field(default_factory=list)

    def __post_init__(self):
        check_fields(self, error=ArtifactError)
        check_not_empty(self, "place", "names", error=ArtifactError)


@pytest.mark.parametrize("bad", [{"place": ""}, {"place": "\n"}, {"names": ["a", " "]}, {"place": 3}], ids=str)
def test_text_that_must_not_be_empty_and_the_error_asked_for(bad):
    with pytest.raises(ArtifactError, match=f"^Texts.{next(iter(bad))} must be "):
        Texts(**bad)
    Texts()


HOSTILE = [
    *("a\nb\r\nc\td", "\x1b[31mred\x1b[0m", "right\u202eleft", "half of a pair \ud83d", "page\x0c\x85", "&lt;b>"),
    *("<b>bold</b>", "<!-- hf_l3rs:end usage -->", "![x](https://evil.example)", r"[x]\(y)", r"C:\data", "a`b"),
    *("a | b", r"a \| b", r"a \\| b", "a\\", "|", "\\", "a\n| b |\n"),
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_in_markdown_is_shown_and_does_nothing(value):
    assert one_line(value).isprintable()
    for text in (markdown_text(value), markdown_cell(value)):
        assert "<" not in text and "](" not in text and text.isprintable()
    assert "<!--" not in markdown_code(value) and markdown_code(value).count("`") == 2
    line = markdown_table(["one", "two"], [[value, "after"]]).splitlines()[2]
    cells = re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])  # as GitHub splits it
    assert len(cells) == 2 and cells[1].strip() == "after"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("No such thing. See the manual at https://x.y."), "No such thing"),
        (ValueError("two\n  lines"), "two lines"),
        (KeyError(), "KeyError"),
        (ValueError("cannot identify <_io.BytesIO object at 0x7fb1155ce390>"), "cannot identify BytesIO"),
        (ValueError("no <class 'transformers.models.bert.BertConfig'> here"), "no BertConfig here"),
    ],
)
def test_what_other_libraries_say_is_put_into_a_sentence(error, text):
    outer = RuntimeError("the top")
    outer.__cause__ = error
    assert reason(outer) == reason(error) == text
    assert len(reason(ValueError("word " * 1000))) <= 200
