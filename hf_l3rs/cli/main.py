"""
The command `hf-l3rs`: makes, measures, looks at and shares learned optimizers.

```bash
hf-l3rs init --model org/model --data org/images
hf-l3rs meta-train my_l3rs.yaml
hf-l3rs evaluate my_l3rs_evaluate.yaml
hf-l3rs push outputs/my_l3rs user/name --private
```

In several processes: `accelerate launch --module hf_l3rs.cli.main meta-train my_l3rs.yaml`, or `torchrun -m` alike.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from hf_l3rs.cli import compare, info, init, push
from hf_l3rs.cli.shell import INTERRUPTED, READER_LEFT, Answer, write
from hf_l3rs.errors import L3RSError
from hf_l3rs.markdown import one_line
from hf_l3rs.settings import OptionParser


# Commands whose options are the fields of settings. Their modules take seconds to import, so they come when needed.
WITH_SETTINGS = {
    "meta-train": "make a learned optimizer by a settings file",
    "evaluate": "measure one beside tuned optimizers by a settings file",
}


def make_parser() -> OptionParser:
    """Returns the parser of the command line; each subcommand's function is in `run`."""
    parser = OptionParser(prog="hf-l3rs", description="Makes, measures and shares learned optimizers for fine-tuning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info.add_to(commands)
    compare.add_to(commands)
    init.add_to(commands)
    for name, text in WITH_SETTINGS.items():
        commands.add_parser(name, help=text, add_help=False)
    push.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command line.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments; those of the process by default.

    Returns:
        `int`: The exit status: 0, 1 after one line on standard error that says what went wrong, 130 after Ctrl-C, or
        141 if the reader of the answer left early.
    """
    try:
        try:
            text = _answer(list(sys.argv[1:] if argv is None else argv))
        except SystemExit:  # of argparse, after --help or a usage error
            write("", sys.stdout, end="")
            raise
        if text:
            write(text, sys.stdout)
    except BrokenPipeError:
        return READER_LEFT
    except (L3RSError, OSError) as error:  # the latter from a folder that may not be read
        write(one_line(f"hf-l3rs: {error}"), sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _answer(argv: list[str]) -> str:
    if argv and argv[0] in WITH_SETTINGS:
        from hf_l3rs.cli import evaluate, meta_train

        command = meta_train if argv[0] == "meta-train" else evaluate
        return command.run(argv[1:]).text
    arguments = make_parser().parse_args(argv)
    arguments.line = shlex.join(["hf-l3rs", *argv])
    answer: Answer = arguments.run(arguments)
    return answer.show("json" in arguments and arguments.json)


if __name__ == "__main__":
    sys.exit(main())
