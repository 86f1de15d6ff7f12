"""What a command answers: text for a person, and the same as values for a script."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from hf_l3rs.markdown import one_line


# Names of rows may be any text; values stand in one column all the same.
_MAX_WIDTH = 60


class Answer(NamedTuple):
    """
    What a command answers.

    Args:
        text (`str`): For a person; empty where nothing is left to say.
        data (`Mapping`): The same as plain values, for `--json`.
    """

    text: str
    data: Mapping[str, Any]

    def show(self, as_json: bool) -> str:
        """Returns what is written to standard output."""
        if not as_json:
            return self.text
        from hf_l3rs.meta.checkpoint import plain_json

        return json.dumps(plain_json(dict(self.data)), indent=2, allow_nan=False)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`, which every command has whose answer a script may want."""
    parser.add_argument("--json", action="store_true", help="answer in JSON, for a script")


def table(rows: Mapping[str, Any]) -> str:
    """One row a line. What an artefact says may be any text: it must not reach the terminal as commands to it."""
    width = min(max(map(len, rows)), _MAX_WIDTH)
    return "\n".join(f"{one_line(name):<{width}}  {one_line(_text(value))}" for name, value in rows.items())


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
