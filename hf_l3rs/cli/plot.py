"""`hf-l3rs plot`: draws the pictures of an output folder again, from what is stored there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_l3rs.cli.shell import Answer, add_json_option
from hf_l3rs.errors import ConfigError, DataError


ROWS, TRAJECTORIES, METRICS = "rows.csv", "trajectories.csv", "metrics.jsonl"


def add_to(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "plot",
        help="draw the pictures of an evaluation or of a meta-training again, from what it stored",
        description=f"Draws what an output folder has, and says where: curves.png from the {ROWS} of an evaluation, "
        f"trajectories.png from {TRAJECTORIES}, curve.png from the {METRICS} of a meta-training, also while it runs.",
    )
    parser.add_argument(
        "source",
        metavar="FOLDER",
        help="output folder of an evaluation, of a meta-training or of trajectories, or one of these files in it",
    )
    parser.add_argument("--title", help="above the pictures; that of the evaluation by default")
    parser.add_argument("--output", metavar="FOLDER", help="where pictures go; beside what they show by default")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    source = Path(arguments.source)
    try:
        pictures = draw_again(source, arguments.output and Path(arguments.output), arguments.title)
    except ImportError as error:
        raise ConfigError(f"{error}") from error
    return Answer("\n".join(map(str, pictures)), {"pictures": [str(path) for path in pictures]})


def draw_again(source: Path, output: Path | None = None, title: str | None = None) -> list[Path]:
    """
    Draws what is stored in a folder.

    Args:
        source (`Path`): The folder of an evaluation, of a meta-training or of trajectories, or one of their files.
        output (`Path`, *optional*): Where pictures go; the folder itself by default.
        title (`str`, *optional*): Above them.

    Returns:
        `list[Path]`: The pictures.

    Raises:
        DataError: If nothing that can be drawn is there, or it cannot be read.
        ImportError: If matplotlib is not installed.
    """
    names = (ROWS, TRAJECTORIES, METRICS)
    folder, asked = (source.parent, (source.name,)) if source.is_file() else (source, names)
    found = [name for name in names if name in asked and (folder / name).is_file()]
    if not found:
        raise DataError(
            f"{source} has none of {', '.join(names)} to draw; give the output folder of an evaluation or of a "
            "meta-training."
        )
    pictures = list(filter(None, (_draw(folder / name, output or folder, title) for name in found)))
    if not pictures:
        raise DataError(
            f"{folder / METRICS} has no generation that was validated; wait for one, or set validation_interval."
        )
    return pictures


def _draw(file: Path, output: Path, title: str | None) -> Path | None:
    """Draws one file; returns the picture, or `None` where no generation of a meta-training was validated."""
    from hf_l3rs.evaluation.plots import plot_learning_curves
    from hf_l3rs.evaluation.rows import read_rows
    from hf_l3rs.evaluation.trajectories import read_trajectory
    from hf_l3rs.evaluation.trajectory_plots import TRAJECTORIES_NAME, plot_trajectories
    from hf_l3rs.hub.artifact import PICTURE_NAME
    from hf_l3rs.meta.curve import CURVE_NAME, draw_curve

    if file.name == ROWS:
        plot_learning_curves(read_rows(file), output / PICTURE_NAME, title or _title_of(file.parent))
        return output / PICTURE_NAME
    if file.name == TRAJECTORIES:
        plot_trajectories(read_trajectory(file), output / TRAJECTORIES_NAME, title or _title_of(file.parent))
        return output / TRAJECTORIES_NAME
    return output / CURVE_NAME if draw_curve(file, output / CURVE_NAME, title) else None


def _title_of(folder: Path) -> str:
    """The title of the evaluation, which stands above its summary, or the folder's name."""
    try:
        first = (folder / "summary.md").read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError):
        first = ""
    return first.removeprefix("# ").strip() or folder.resolve().name
