"""Which meta-weights are kept: validation on fixed tasks, the best so far, and the curve of it all."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator

from hf_l3rs.distributed import share_out
from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.files import write_files
from hf_l3rs.meta.checkpoint import METRICS_NAME, Progress
from hf_l3rs.meta.evolution import rollout
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import Task


CURVE_NAME = "curve.png"

# A curve has at least so many points: short runs are validated more often than `validation_interval` says.
MIN_VALIDATIONS = 5


class Selection:
    """Validates the average of the meta-weights on fixed tasks, at the end at the latest, and keeps the best."""

    def __init__(
        self, tasks: Sequence[Task], config: L3RSConfig, accelerator: Accelerator, interval: int, num_generations: int
    ) -> None:
        self.tasks = list(tasks)
        self.interval = capped_interval(interval, num_generations) if self.tasks else 0
        self._config, self._accelerator = config, accelerator

    def measure_untrained(self, progress: Progress) -> None:
        """Measures, before the first generation, what meta-training starts from where it starts from nothing."""
        loss = self.mean_loss(L3RSNetwork(self._config).to_vector())
        progress.untrained_loss = loss if math.isfinite(loss) else None

    def validate(self, progress: Progress) -> dict[str, float | None]:
        """Scores the average, and keeps it if it is the best; returns what is logged."""
        loss = self.mean_loss(progress.state.average)
        if loss < (math.inf if progress.best_loss is None else progress.best_loss):
            progress.best_loss, progress.best_generation = loss, progress.state.generation
            progress.best_mean = progress.state.average.clone()
        return {
            "validation_loss": loss,
            "best_validation_loss": progress.best_loss,
            "validation_loss_untrained": progress.untrained_loss,
        }

    def mean_loss(self, vector: torch.Tensor) -> float:
        """Returns the mean final evaluation loss over the tasks, in nats; infinite if one of them diverged."""
        network = L3RSNetwork(self._config)
        network.load_vector(vector)
        how = {"device": self._accelerator.device, "autocast": self._accelerator.autocast}
        losses = share_out(self._accelerator, self.tasks, lambda task: rollout(task.model, network, task, **how).loss)
        return float(torch.tensor(losses, dtype=torch.float64).mean())

    def check_outcome(self, progress: Progress) -> None:
        """Raises if a run which is over has nothing to keep: every candidate of it diverged, or every validation."""
        if progress.cost["num_diverged"] >= progress.cost["evaluations"]:
            raise NothingToKeepError(
                f"Meta-training gave nothing: all {progress.cost['evaluations']} candidates diverged or had a loss "
                "that is not a number; check the base model's weights and image processor, lower base_step or sigma, "
                "and start anew in another output_dir."
            )
        if self.interval and progress.best_loss is None:
            raise NothingToKeepError(
                "Meta-training gave nothing to keep: the meta-weights diverged at every validation; lower "
                "learning_rate or base_step, and start anew in another output_dir."
            )


def capped_interval(interval: int, num_generations: int) -> int:
    """Returns the generations between validations of a run of so many: a short one has several all the same."""
    return min(interval, math.ceil(num_generations / MIN_VALIDATIONS))


def draw_curve(folder: Path) -> bool:
    """Draws a run's validation loss over generations from its metrics. Returns whether there was anything to draw."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = ["generation", "validation_loss", "validation_loss_untrained"]
    metrics = pd.read_json(folder / METRICS_NAME, lines=True).reindex(columns=columns).dropna(subset="validation_loss")
    if metrics.empty:
        return False
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(metrics.generation, metrics.validation_loss, "o-", label="L3RS")
    if metrics.validation_loss_untrained.notna().any():
        axis.axhline(metrics.validation_loss_untrained.iloc[0], color="gray", linewidth=1.3, label="untrained L3RS")
    axis.set(xlabel="generation", ylabel="loss on the validation tasks", xlim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_files(folder, {CURVE_NAME: picture.getvalue()})
    return True
