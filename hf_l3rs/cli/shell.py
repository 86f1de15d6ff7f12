"""How a script meets the shell: an error is one sentence and a failure, and Ctrl-C is no traceback."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hf_l3rs.errors import L3RSError
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


# What a shell expects of a process that Ctrl-C ended.
INTERRUPTED = 130


def run_script(main: Callable[[], object]) -> None:
    """
    Runs a script's `main`.

    Args:
        main (`Callable`): Takes the command line from `sys.argv`.

    Raises:
        SystemExit: After an [`~hf_l3rs.L3RSError`], with its sentence, and after Ctrl-C, with the status 130.
    """
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
