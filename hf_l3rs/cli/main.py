"""
The command `hf-l3rs`: makes, measures, looks at and shares learned optimizers.

```bash
hf-l3rs init --model org/model --data org/images
hf-l3rs meta-train my_l3rs.yaml
hf-l3rs evaluate my_l3rs_evaluate.yaml
hf-l3rs push outputs/my_l3rs user/name --private
```

In several processes: `accelerate launch --module hf_l3rs.cli meta-train my_l3rs.yaml`, or `torchrun -m` alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from hf_l3rs.cli import compare, info, init, push
from hf_l3rs.cli.shell import INTERRUPTED, Answer
from hf_l3rs.errors import L3RSError
from hf_l3rs.markdown import one_line
from hf_l3rs.settings import OptionParser


def _meta_train(argv: Sequence[str]) -> Answer:
    from hf_l3rs.cli.meta_train import run

    return run(argv)


def _evaluate(argv: Sequence[str]) -> Answer:
    from hf_l3rs.cli.evaluate import run

    return run(argv)


# Commands whose options are the fields of settings, and what the list of commands says of them. Those are a great
# many, and of modules that take seconds to import.
WITH_SETTINGS: dict[str, tuple[Callable[[Sequence[str]], Answer], str]] = {
    "meta-train": (_meta_train, "make a learned optimizer: SETTINGS.yaml, and options that override it"),
    "evaluate": (_evaluate, "measure one against tuned optimizers: SETTINGS.yaml, and options that override it"),
}


def make_parser() -> OptionParser:
    """Returns the parser of the command line; each subcommand's function is in `run`."""
    parser = OptionParser(prog="hf-l3rs", description="Makes, measures and shares learned optimizers for fine-tuning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init.add_to(commands)
    for name, (_, text) in WITH_SETTINGS.items():
        commands.add_parser(name, help=text, add_help=False)
    for command in (compare, info, push):
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command line.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments; those of the process by default.

    Returns:
        `int`: The exit status: 0, 1 after one line about what went wrong on standard error, or 130 after Ctrl-C.
    """
    try:
        text = _answer(list(sys.argv[1:] if argv is None else argv))
    except (L3RSError, OSError) as error:  # the latter from a folder that may not be read
        _write(one_line(f"hf-l3rs: {error}"), sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    if text:
        _write(text, sys.stdout)
    return 0


def _answer(argv: list[str]) -> str:
    if argv and argv[0] in WITH_SETTINGS:
        run, _ = WITH_SETTINGS[argv[0]]
        return run(argv[1:]).text
    arguments = make_parser().parse_args(argv)
    answer: Answer = arguments.run(arguments)
    return answer.show("json" in arguments and arguments.json)


def _write(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


if __name__ == "__main__":
    sys.exit(main())
