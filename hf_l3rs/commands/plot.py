"""`hf-l3rs plot`: draws the pictures of an output folder again, from what is stored there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_l3rs.commands.answer import Answer, add_json_option
from hf_l3rs.errors import ConfigError, DataError


ROWS, TRAJECTORIES = "rows.csv", "trajectories.csv"


def add_to(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "plot",
        help="draw the pictures of an evaluation again, from its stored rows",
        description=f"Draws curves.png from FOLDER/{ROWS}, and trajectories.png from FOLDER/{TRAJECTORIES}.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder of an evaluation or of trajectories")
    parser.add_argument("--title", help="above the pictures; that of the evaluation by default")
    parser.add_argument("--output", metavar="FOLDER", help="where pictures go; FOLDER itself by default")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    folder = Path(arguments.folder)
    output = Path(arguments.output or folder)
    try:
        pictures = draw_again(folder, output, arguments.title)
    except ImportError as error:
        raise ConfigError(f"{error}") from error
    return Answer("\n".join(map(str, pictures)), {"pictures": [str(path) for path in pictures]})


def draw_again(folder: Path, output: Path, title: str | None = None) -> list[Path]:
    """
    Draws what is stored in a folder.

    Args:
        folder (`Path`): Of an evaluation, or of trajectories.
        output (`Path`): Where pictures go.
        title (`str`, *optional*): Above them.

    Returns:
        `list[Path]`: The pictures.

    Raises:
        DataError: If nothing that can be drawn is there, or it cannot be read.
        ImportError: If matplotlib is not installed.
    """
    from hf_l3rs.evaluation.plots import plot_learning_curves
    from hf_l3rs.evaluation.results import read_rows
    from hf_l3rs.evaluation.trajectories import read_trajectory
    from hf_l3rs.evaluation.trajectory_plots import TRAJECTORIES_NAME, plot_trajectories
    from hf_l3rs.hub.artifact import PICTURE_NAME

    title = title or _title_of(folder)
    pictures = []
    if (folder / ROWS).is_file():
        pictures.append(output / PICTURE_NAME)
        plot_learning_curves(read_rows(folder / ROWS), pictures[-1], title)
    if (folder / TRAJECTORIES).is_file():
        pictures.append(output / TRAJECTORIES_NAME)
        plot_trajectories(read_trajectory(folder / TRAJECTORIES), pictures[-1], title)
    if not pictures:
        raise DataError(
            f"{folder} has neither {ROWS} nor {TRAJECTORIES} to draw; give the output folder of an evaluation."
        )
    return pictures


def _title_of(folder: Path) -> str:
    """The title of the evaluation, which stands above its summary, or the folder's name."""
    try:
        first = (folder / "summary.md").read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError):
        first = ""
    return first.removeprefix("# ").strip() or folder.resolve().name
