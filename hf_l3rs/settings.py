"""Settings from a YAML file and from options that override it, for `HfArgumentParser`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_l3rs.errors import ConfigError


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
        ConfigError: If the file cannot be read, or has a field that no type knows.
    """
    from transformers import HfArgumentParser

    args = list(sys.argv[1:] if args is None else args)
    parser = HfArgumentParser(
        list(dataclass_types),  # type: ignore[arg-type]
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        **kwargs,
    )
    if args and args[0].endswith((".yaml", ".yml")):
        values = _read_yaml(args.pop(0))
        known = {spec.name for kind in dataclass_types for spec in dataclasses.fields(kind)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"Unknown settings in the YAML file: {', '.join(unknown)}; known are {sorted(known)}.")
        parser.set_defaults(**values)
        for action in parser._actions:
            action.required = action.required and action.dest not in values
    return parser.parse_args_into_dataclasses(args, look_for_args_file=False)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The settings file {path} must hold one `name: value` a line, got {type(values).__name__}.")
    return values
