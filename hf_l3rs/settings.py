"""Settings from a YAML file and from options that override it, for `HfArgumentParser`, and the parser of options."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml

from hf_l3rs.errors import ConfigError, reason
from hf_l3rs.markdown import one_line


if TYPE_CHECKING:
    from transformers import HfArgumentParser


class OptionParser(argparse.ArgumentParser):
    """Takes options by their whole names alone, where argparse also takes beginnings of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names each option once, with its default, or that it is needed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.required:
            return f"{action.help} (needed, as an option or in SETTINGS.yaml)"
        return action.help if action.default in (None, []) else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} VALUE{' ...' if action.nargs == '+' else ''}"


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
        ConfigError: If the file cannot be read, has an unknown field, or a value is not allowed.
        SystemExit: If an option is unknown, cannot be read or is missing, after the parser's own message.
    """
    args = list(sys.argv[1:] if args is None else args)
    values = {}
    if args and not args[0].startswith("-"):
        path = args.pop(0)
        if not path.endswith((".yaml", ".yml")):
            raise ConfigError(
                f"A settings file must end in .yaml or .yml, got {path!r}; rename it, or let `hf-l3rs init` write one."
            )
        values = read_yaml(path)
    return parse_settings(dataclass_types, values, args, **kwargs)


def parse_settings(
    dataclass_types: Sequence[type], values: Mapping[str, Any], args: Sequence[str] = (), **kwargs: Any
) -> tuple:
    """As [`parse_arguments`], with `values` for the settings of the YAML file and `args` for the options."""
    known = {spec.name for kind in dataclass_types for spec in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        close = sorted({match for name in unknown for match in difflib.get_close_matches(name, known)})
        raise ConfigError(
            f"Unknown settings in the YAML file: {one_line(', '.join(unknown))[:100]}; known are "
            f"{', '.join([*close, 'others'])}, which --help lists; correct or remove it."
        )
    parser = _parser(dataclass_types, **kwargs)
    parser.add_argument("settings", nargs="?", metavar="SETTINGS.yaml", help="a file of `name: value`; options win")
    for action in parser._actions:
        action.required = action.required and action.dest not in values
    # What is in the namespace already is kept as it is, unlike a default, which argparse would convert like an option.
    namespace = parser.parse_args(list(args), argparse.Namespace(**values))
    if (late := vars(namespace).pop("settings")) is not None:
        parser.error(f"the settings file must be the first argument, got {late!r} later; move or remove it")
    return parser.parse_dict(vars(namespace))


def _parser(dataclass_types: Sequence[type], **kwargs: Any) -> HfArgumentParser:
    """Each dataclass is a group of options under the first words of its docstring."""
    from transformers import HfArgumentParser

    class SettingsParser(OptionParser, HfArgumentParser):
        def _add_dataclass_arguments(self, dtype: Any) -> None:
            group: Any = self.add_argument_group(re.split(r"[.,;:]\s", dtype.__doc__.strip())[0])
            hints = get_type_hints(dtype)
            for spec in dataclasses.fields(dtype):
                spec.type = hints[spec.name]
                self._parse_dataclass_field(group, spec)

    usage = "%(prog)s [SETTINGS.yaml] [--OPTION VALUE ...]"
    return SettingsParser(list(dataclass_types), **{"formatter_class": _HelpFormatter, "usage": usage, **kwargs})


class _Loader(yaml.SafeLoader):
    """Takes `1e-3` for a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: str) -> dict[str, Any]:
    """Reads a file of settings."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no settings file {path}; give one in YAML that is there, or let `hf-l3rs init` write one for "
            "your model and data."
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            why = f"{error.problem} in line {error.problem_mark.line + 1}"
        raise ConfigError(
            f"The settings file {path} cannot be read as YAML in UTF-8: {why}; correct it, or name another."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"The settings file {path} must hold one `name: value` a line, got {type(values).__name__}.")
    return {str(name): value for name, value in values.items()}
