"""What an L3RS does with every layer over a run, as the app shows it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
from PIL import Image

from recipes.evidence.behaviour import describe_behaviour
from recipes.evidence.trajectories import SHARE, directions_of, record_trajectory
from recipes.evidence.trajectory_plots import plot_trajectories
from recipes.space.embedded import check_fit, load_network, load_stage


class Look(NamedTuple):
    """
    What is seen of one run.

    Args:
        table (`pandas.DataFrame`): Of [`~recipes.evidence.trajectories.to_table`].
        picture (`PIL.Image.Image`): λ and μ of every layer at every step.
        summary (`str`): Two sentences on it.
    """

    table: pd.DataFrame
    picture: Image.Image
    summary: str


@lru_cache(maxsize=16)
def look(l3rs: str, model: str, horizon: int, task: int) -> Look:
    """
    Fine-tunes an embedded model with an L3RS, and looks at what it decides; about two seconds of one core.

    Args:
        l3rs (`str`): As of [`~recipes.space.embedded.load_network`].
        model (`str`): As of [`~recipes.space.embedded.load_stage`].
        horizon, task (`int`): As of [`~recipes.space.embedded.Stage.draw`].

    Raises:
        L3RSError: If the L3RS cannot be had, does not fit the model or diverges on it, or a number is out of range.
    """
    network, stage = load_network(l3rs), load_stage(model)
    check_fit(network.config, stage.model)
    table = record_trajectory(stage.model, network, stage.draw(task, horizon))
    title = f"{Path(l3rs).name} on the {model}, a run of {horizon} steps"
    return Look(table, draw(table, title), summarise(table, network.config.base_step))


def draw(table: pd.DataFrame, title: str) -> Image.Image:
    """Returns the picture of [`~recipes.evidence.trajectory_plots.plot_trajectories`]."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trajectories.png")
        plot_trajectories(table, path, title)
        with Image.open(path) as image:
            image.load()
            return image


def summarise(table: pd.DataFrame, base_step: float) -> str:
    """Says what the picture shows, and which share it leaves out."""
    *drawn, last = directions_of(table)
    text = f"In this run (the base step is {base_step:g} per element): {describe_behaviour(table)}"
    return f"{text} What is left of 1 beside {' and '.join(drawn)} is the share of {last}." if drawn else text


def layers_of(table: pd.DataFrame) -> list[str]:
    """Returns the names of the layers, from the first to the head."""
    return list(dict.fromkeys(table.layer))


def sizes_of(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """Returns λ of one layer over the run, in multiples of the base step: the columns `step` and `size`."""
    return table[table.layer == layer][["step", "relative_step"]].rename(columns={"relative_step": "size"})


def shares_of(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """Returns μ of one layer over the run: the columns `step`, `share` and `direction`."""
    of_layer = table[table.layer == layer].rename(columns=lambda name: name.removeprefix(SHARE))
    return of_layer.melt("step", directions_of(table), var_name="direction", value_name="share")
