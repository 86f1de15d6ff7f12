"""The command `hf-l3rs`: makes, measures, looks at and shares learned optimizers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, TextIO

from hf_l3rs.errors import L3RSError
from hf_l3rs.markdown import one_line
from hf_l3rs.settings import OptionParser


# Each is a module with a function `run` of what follows the name. They take seconds to import, so only one is.
COMMANDS = {
    "info": "list the released learned optimizers, or describe one",
    "compare": "a learned optimizer and its rivals on your model and your data, paired",
    "init": "look at a model and a data set, and write the settings for meta-train and evaluate",
    "meta-train": "make a learned optimizer by a settings file",
    "evaluate": "measure one beside tuned optimizers by a settings file",
    "push": "upload a learned optimizer, with what was measured, to the Hub in one commit",
}
# What a shell expects of a process that Ctrl-C, or the end of a reader such as `head`, has ended.
INTERRUPTED, READER_LEFT = 130, 141
# A cell may be any text; the next column stands where it does all the same.
_MAX_WIDTH = 60


def make_parser() -> OptionParser:
    """Returns the parser of the command's name; what follows it is parsed by the command."""
    parser = OptionParser(prog="hf-l3rs", description="Makes, measures and shares learned optimizers for fine-tuning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line, by default that of the process, and returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def command() -> None:
        name = make_parser().parse_args(argv[:1]).command
        write(import_module(f"hf_l3rs.cli.{name.replace('-', '_')}").run(argv[1:]), sys.stdout)

    return _status(command, "hf-l3rs")


def run_script(main: Callable[[], object]) -> None:
    """Runs the `main` of a recipe; a user's mistake ends in a sentence and a status in place of a traceback."""
    if status := _status(main, "error"):
        sys.exit(status)


def _status(work: Callable[[], object], name: str) -> int:
    try:
        try:
            work()
        finally:  # also after --help, when argparse ends the process
            write("", sys.stdout)
    except BrokenPipeError:
        _discard(sys.stdout)
        return READER_LEFT
    except (L3RSError, OSError) as error:  # the latter from a folder that may not be read
        write(one_line(f"{name}: {error}"), sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def columns(rows: Iterable[Sequence[Any]]) -> str:
    """Returns a line for each row, with aligned columns. Text that a terminal would obey is shown in place of that."""
    lines = [[one_line(_text(cell)) for cell in row] for row in rows]
    widths = [min(max(map(len, column)), _MAX_WIDTH) for column in zip(*lines)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() for line in lines)


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def write(text: str, stream: TextIO | None) -> None:
    """Writes and flushes a line if the stream is open. Characters that its encoding lacks become escapes."""
    if stream is None:
        return
    encoding, end = stream.encoding or "utf-8", "\n" if text else ""
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=True)
    except OSError:
        _discard(stream)
        raise


def _discard(stream: TextIO) -> None:
    """Lets what is still buffered for a broken stream go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
