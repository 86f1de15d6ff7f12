"""How a script meets the shell: an error is one sentence and a failure, and Ctrl-C is no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hf_l3rs.errors import L3RSError


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
