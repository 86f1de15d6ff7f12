"""Settings from a YAML file and from options that override it, for `HfArgumentParser`."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_l3rs.errors import ConfigError, reason


def parse_arguments(dataclass_types: Sequence[type], args: Sequence[str] | None = None, **kwargs: Any) -> tuple:
    """
    Reads settings from an optional YAML file, the first argument, and from options, which win.

    Args:
        dataclass_types (`Sequence[type]`): What to fill.
        args (`Sequence[str]`, *optional*): The command line; that of the process by default.
        kwargs: Passed to the parser, such as `description`.

    Returns:
        `tuple`: An instance of each type.

    Raises:
        ConfigError: If the file cannot be read, has a field that no type knows, or a value is not allowed.
        SystemExit: If an option is unknown, cannot be read or is missing, after the parser's own message.
    """
    from transformers import HfArgumentParser

    args = list(sys.argv[1:] if args is None else args)
    values = _read_yaml(args.pop(0)) if args and args[0].endswith((".yaml", ".yml")) else {}
    known = {spec.name for kind in dataclass_types for spec in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"Unknown settings in the YAML file: {', '.join(unknown)}; known are {sorted(known)}.")
    parser = HfArgumentParser(
        list(dataclass_types),  # type: ignore[arg-type]
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        **kwargs,
    )
    for action in parser._actions:
        action.required = action.required and action.dest not in values
    # What is in the namespace already is kept as it is, unlike a default, which argparse would convert like an option.
    namespace = parser.parse_args(args, argparse.Namespace(**values))
    return parser.parse_dict(vars(namespace))


class _Loader(yaml.SafeLoader):
    """Takes `1e-3` for a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"The settings file {path} cannot be read as YAML in UTF-8: {reason(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The settings file {path} must hold one `name: value` a line, got {type(values).__name__}.")
    return {str(name): value for name, value in values.items()}
