"""What an L3RS that is being trained does with every role of layers over a run, for the trackers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.trajectories import SHARE, directions_of, record_trajectory
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.task import Task


class TrajectoryLog:
    """
    Sends λ and μ of a run on the first validation task to the trackers (paper, figs. 4 and 5), by role: at its start,
    in its middle and at its end at each validation, and as a picture in the end. Costs nothing without a tracker.

    Args:
        config ([`L3RSConfig`]): Of the meta-weights.
        tasks (`Sequence[Task]`): The validation tasks; nothing is sent without any.
        accelerator (`Accelerator`): With the trackers.
    """

    def __init__(self, config: L3RSConfig, tasks: Sequence[Task], accelerator: Accelerator) -> None:
        self._network, self._tasks, self._accelerator = L3RSNetwork(config), tasks, accelerator
        self._last: tuple[int, pd.DataFrame] | None = None

    def log(self, mean: torch.Tensor, generation: int) -> None:
        """Runs meta-weights of shape `(dimension,)` on the task; sends nothing where that diverges."""
        if not (self._tasks and self._accelerator.trackers and self._accelerator.is_main_process):
            return
        task = self._tasks[0]
        self._network.load_vector(mean)
        try:
            table = record_trajectory(task.model, self._network, task, self._accelerator.device)
        except DataError:
            return
        self._last = generation, table
        self._accelerator.log(trajectory_figures(table), step=generation)

    def draw(self, folder: Path) -> None:
        """Draws the last run into `folder`, where matplotlib is there, and shows it where a tracker can."""
        if self._last is None or find_spec("matplotlib") is None:
            return
        from hf_l3rs.evaluation.trajectory_plots import TRAJECTORIES_NAME, plot_trajectories

        generation, table = self._last
        title = f"a run of {table.step.max()} steps, after {generation} generations"
        plot_trajectories(table, folder / TRAJECTORIES_NAME, title)
        with Image.open(folder / TRAJECTORIES_NAME) as image:
            picture = np.asarray(image.convert("RGB"))
        for tracker in self._accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"trajectories": picture[None]}, step=generation, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({"trajectories": [picture]}, step=generation)


def trajectory_figures(table: pd.DataFrame) -> dict[str, float]:
    """
    Returns λ in multiples of the base step, as geometric mean over the layers of a role, and μ, as their mean.

    Args:
        table (`pandas.DataFrame`): Of [`~hf_l3rs.evaluation.trajectories.to_table`].

    Returns:
        `dict[str, float]`: Such as `"lambda/head.weight/start"` and `"mu_adam/head.weight/end"`.
    """
    table = table.assign(log_step=np.log(table.relative_step.clip(lower=1e-12)))
    last = int(table.step.max())
    figures = {}
    for moment, step in (("start", 1), ("middle", (last + 1) // 2), ("end", last)):
        for role, layers in table[table.step == step].groupby("role", sort=False):
            figures[f"lambda/{role}/{moment}"] = float(np.exp(layers.log_step.mean()))
            for name in directions_of(table):
                figures[f"mu_{name}/{role}/{moment}"] = float(layers[f"{SHARE}{name}"].mean())
    return figures
