"""
Settings of a released L3RS, all in one YAML file: how it was made, and how it was measured.

What is at the top holds for everything. `meta_training` is a list of stages, each with the settings of `hf-l3rs
meta-train` that it adds. `evaluation` has settings of `hf-l3rs evaluate`, and under `cells`, by name, what differs in
each comparison.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.job import EvaluationArguments
from hf_l3rs.settings import parse_settings, read_yaml
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


# How the tasks of a cell relate to meta-training. The first five are A to E of the paper's figure 3.
SETTINGS = {
    "in_domain": "in domain",
    "other_initialisation": "other initialisation",
    "other_domain": "other domain",
    "other_both": "other initialisation and domain",
    "random_initialisation": "random initialisation",
    "in_domain_long": "in domain, long runs",
    "in_domain_rivals": "in domain, more rivals",
    "other_domain_in_colour": "other domain, in colour",
    "convnext": "other architecture, ConvNeXt",
    "dinov2": "other architecture, DINOv2",
    "mobilenet_v2": "other architecture, MobileNetV2",
    "resnet_wide": "other architecture, wide ResNet",
    "swin": "other architecture, Swin",
}
LETTERS = dict(zip_longest(SETTINGS, ("A. ", "B. ", "C. ", "D. ", "E. "), fillvalue=""))


class Experiment(NamedTuple):
    """
    Settings as a file has them.

    Args:
        stages (`list[dict]`): Of meta-training, in their order.
        cells (`dict[str, dict]`): Of evaluations, by name.
    """

    stages: list[dict[str, Any]]
    cells: dict[str, dict[str, Any]]


def read_experiment(path: str) -> Experiment:
    """
    Reads a file of settings.

    Args:
        path (`str`): One with neither `meta_training` nor `evaluation` is a single stage.

    Raises:
        ConfigError: If it cannot be read, or is not as described above.
    """
    common = read_yaml(path)
    is_plain = not {"meta_training", "evaluation"} & set(common)
    stages, evaluation = common.pop("meta_training", []), common.pop("evaluation", {})
    cells = evaluation.pop("cells", {}) if isinstance(evaluation, dict) else None
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise ConfigError(f"{path}: meta_training must be a list of stages, each with settings; correct the file.")
    if not isinstance(cells, dict) or not all(name in SETTINGS and _is_cell(cell) for name, cell in cells.items()):
        raise ConfigError(
            f"{path}: under evaluation, cells must be any of {', '.join(SETTINGS)}, each with the settings that "
            "differ; correct the file."
        )
    return Experiment(
        [{**common, **stage} for stage in stages] or [common] * is_plain,
        {name: _cell(name, {**common, **evaluation, **(cell or {})}) for name, cell in cells.items()},
    )


def _is_cell(cell: Any) -> bool:
    return cell is None or isinstance(cell, Mapping)


def _cell(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """A cell says how its tasks relate to meta-training."""
    return {"setting": SETTINGS[name], "title": f"{Path(str(values.get('l3rs'))).name}, {SETTINGS[name]}", **values}


def split_path(argv: Sequence[str] | None, types: Sequence[type], description: str) -> tuple[str, list[str]]:
    """
    Returns the settings file of a command line, its first argument, and the options.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; that of the process by default.
        types (`Sequence[type]`): The settings, for `--help`.
        description (`str`): What `--help` begins with.

    Raises:
        ConfigError: If it begins with something else.
        SystemExit: After `--help`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or not argv[0].endswith((".yaml", ".yml")):
        parse_settings(types, {}, argv, description=description)
        raise ConfigError("The first argument must be a settings file in YAML; give one of recipes/configs.")
    return argv[0], argv[1:]


def own_settings(argv: Sequence[str] | None, kind: type, description: str) -> tuple:
    """
    Reads the settings of a file's first cell, which is what the L3RS was made for, and one more type of settings.

    Args:
        argv (`Sequence[str]`, *optional*): The file and options that override it; that of the process by default.
        kind (`type`): The further settings.
        description (`str`): What `--help` begins with.

    Returns:
        `tuple`: Of `ModelArguments`, `TaskArguments`, `EvaluationArguments` and `kind`.

    Raises:
        ConfigError: If there is no cell, or a setting is not allowed.
    """
    types = (ModelArguments, TaskArguments, EvaluationArguments, kind)
    path, options = split_path(argv, types, description)
    cells = list(read_experiment(path).cells.values())
    if not cells:
        raise ConfigError(f"{path} has no evaluation with cells; give a file of recipes/configs that has.")
    return parse_settings(types, cells[0], options)
