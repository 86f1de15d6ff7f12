"""The cells of the paper's figure 3, and architectures never seen: each an evaluation, all of one file's settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments
from hf_l3rs.settings import parse_settings, read_yaml
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


# What the cells say of how their tasks relate to meta-training, by the names of their folders: A to E are the paper's,
# and the others, for an L3RS that knows layers by role, are ours.
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


class Cell(NamedTuple):
    """
    One evaluation of the grid.

    Args:
        model ([`~hf_l3rs.tasks.task_arguments.ModelArguments`]): The model that is fine-tuned.
        tasks ([`~hf_l3rs.tasks.task_arguments.TaskArguments`]): The tasks that it is fine-tuned on.
        evaluation ([`EvaluationArguments`]): What is measured; `output_dir` is the cell's own folder.
    """

    model: ModelArguments
    tasks: TaskArguments
    evaluation: EvaluationArguments


@dataclass
class GridArguments:
    """
    Which of a file's cells.

    Args:
        only (`list[str]`, *optional*): Names of cells; all by default.

    Raises:
        ConfigError: If a name is unknown.
    """

    only: list[str] = field(default_factory=list, metadata={"help": "Names of cells; all by default."})

    def __post_init__(self) -> None:
        unknown = [name for name in self.only if name not in SETTINGS]
        if unknown:
            raise ConfigError(f"Unknown cells {', '.join(unknown)}; known are {', '.join(SETTINGS)}.")


def read_cells(args: Sequence[str] | None = None, **kwargs: Any) -> dict[str, Cell]:
    """
    Reads the cells of a grid. Its YAML file has settings for all of them, and under `cells`, by name, what differs.

    Args:
        args (`Sequence[str]`, *optional*):
            The file, then options that override it for every cell; the command line of the process by default.
        kwargs: Passed to the parser, such as `description`.

    Returns:
        `dict[str, Cell]`: By name, in the order of the file.

    Raises:
        ConfigError: If there is no file, it has no cells, or a setting is not allowed.
        SystemExit: If an option is unknown or cannot be read, after the parser's own message.
    """
    args = list(sys.argv[1:] if args is None else args)
    types = (ModelArguments, TaskArguments, EvaluationArguments, GridArguments)
    if not args or not args[0].endswith((".yaml", ".yml")):
        parse_settings(types, {}, args, **kwargs)  # --help, or a message on what is missing
        raise ConfigError("A grid needs a YAML file with its cells, such as recipes/configs/figure3_*.yaml.")
    path = args.pop(0)
    common = read_yaml(path)
    cells = common.pop("cells", None)
    names = list(cells) if isinstance(cells, dict) else []
    if not names or not all(name in SETTINGS and isinstance(cells[name], dict | None) for name in names):
        raise ConfigError(
            f"The settings file {path} must have, under cells, any of {', '.join(SETTINGS)}, each with the settings "
            "that differ; correct it, or name another."
        )
    grid = {}
    for name in names:
        values = {"setting": SETTINGS[name], **common, **(cells[name] or {})}
        model, tasks, evaluation, chosen = parse_settings(types, values, args, **kwargs)
        folder = str(Path(evaluation.output_dir) / name)
        if not chosen.only or name in chosen.only:
            grid[name] = Cell(model, tasks, replace(evaluation, output_dir=folder))
    return grid
