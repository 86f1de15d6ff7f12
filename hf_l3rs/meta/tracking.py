"""How a run is launched and watched: Accelerate and its trackers, and the figures on the progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from hf_l3rs.errors import ConfigError, reason


def make_accelerator(report_to: str | None = None, project_dir: str | Path | None = None) -> Accelerator:
    """
    Returns an Accelerator that joins the processes of `torchrun` also where there is no GPU.

    Args:
        report_to (`str`, *optional*): A tracker that Accelerate knows, or `"all"` for all that are installed.
        project_dir (`str` or `Path`, *optional*): Where trackers that write files do so.

    Raises:
        ConfigError: If the tracker is unknown, or its package is not installed.
    """
    if report_to is not None:
        _check_tracker(report_to)
    return Accelerator(log_with=report_to, project_dir=project_dir, cpu=not torch.accelerator.is_available())


def _check_tracker(name: str) -> None:
    known = [kind.value for kind in LoggerType]
    if name not in known:
        raise ConfigError(
            f"report_to must be one of {', '.join(known)}, got {name!r}; leave it out to report nowhere."
        )
    installed = [str(kind) for kind in get_available_trackers()]
    if name not in installed and not (name == "all" and installed):
        package = "any tracker" if name == "all" else name
        raise ConfigError(
            f"report_to is {name!r}, but the package of {package} is not installed; install it, or choose another of "
            f"{', '.join(known)}."
        )


def start_trackers(accelerator: Accelerator, project: str, settings: Mapping[str, Any]) -> None:
    """
    Starts the trackers of an Accelerator, and tells them the settings of the run.

    Args:
        accelerator (`Accelerator`): With the trackers, or none.
        project (`str`): Under which they file the run.
        settings (`Mapping[str, Any]`): Those that [`flat_scalars`] leaves are kept with it.

    Raises:
        ConfigError: If a tracker does not start.
    """
    try:
        accelerator.init_trackers(project, config=flat_scalars(settings))
    except Exception as error:  # of every kind, as trackers have their own
        names = ", ".join(tracker.name.lower() for tracker in accelerator.log_with)
        raise ConfigError(
            f"report_to is {names}, which does not start ({reason(error)}); set it up as its package asks, wandb by "
            "`wandb login` or WANDB_MODE=offline in the environment, or leave report_to out."
        ) from error


def flat_scalars(settings: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    """Returns nested settings as the flat scalars that trackers take, `outer.inner` by name."""
    flat: dict[str, int | float | str | bool] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flat_scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float, str, bool)):
            flat[f"{prefix}{name}"] = value
    return flat


def bar_figures(metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns the figures that matter while waiting, under short names."""
    names = {"meta_loss": "meta-loss", "accuracy": "acc", "best_validation_loss": "best val", "num_diverged": "div"}
    names |= {name: name.removeprefix("validation_loss_") for name in metrics if name.startswith("validation_loss_")}
    shown = {label: f"{metrics[name]:.4g}" for name, label in names.items() if name in metrics}
    return shown | {"steps/s": f"{metrics['inner_steps_per_second']:.0f}"}
