"""How commands and recipes meet the shell: their answers, and a sentence and a status in place of a traceback."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from hf_l3rs.errors import L3RSError
from hf_l3rs.markdown import one_line


# What a shell expects of a process that Ctrl-C, or the end of a reader such as `head`, has ended.
INTERRUPTED, READER_LEFT = 130, 141
# A cell may be any text; the next column stands where it does all the same.
_MAX_WIDTH = 60


class Answer(NamedTuple):
    """
    What a command answers.

    Args:
        text (`str`): For a person; empty where nothing is left to say.
        data (`Mapping` or `list`): The same as plain values, for `--json`.
    """

    text: str
    data: Mapping[str, Any] | Sequence[Any]

    def show(self, as_json: bool) -> str:
        """Returns what is written to standard output."""
        if not as_json:
            return self.text
        from hf_l3rs.meta.checkpoint import plain_json

        return json.dumps(plain_json(self.data), indent=2, allow_nan=False)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`, which every command has whose answer a script may want."""
    parser.add_argument("--json", action="store_true", help="answer in JSON, for a script")


def columns(rows: Iterable[Sequence[Any]]) -> str:
    """
    Returns a line for each row, with columns as wide as their widest cell. What an artefact says may be any text: here
    it is shown, and never reaches the terminal as a command.
    """
    lines = [[one_line(_text(cell)) for cell in row] for row in rows]
    widths = [min(max(map(len, column)), _MAX_WIDTH) for column in zip(*lines)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() for line in lines)


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def run_script(main: Callable[[], object]) -> None:
    """
    Runs a script's `main`, which takes the command line from `sys.argv`.

    Raises:
        SystemExit:
            After an [`~hf_l3rs.L3RSError`] with its sentence, after Ctrl-C and after a reader left with their status.
    """
    try:
        main()
        write("", sys.stdout, end="")
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(READER_LEFT)
    except L3RSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def write(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """
    Writes text to a stream, if it is open, and sends it on, so that an error comes here and not when Python ends.
    Characters that the stream's encoding lacks become escapes.
    """
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=True)
    except OSError:
        _discard(stream)
        raise


def _discard(stream: TextIO) -> None:
    """Lets what is still buffered for a broken stream go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
