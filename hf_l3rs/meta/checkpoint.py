"""Checkpoints of a meta-training run: safetensors and JSON in a folder that appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hf_l3rs.errors import CheckpointError
from hf_l3rs.meta.evolution import ESState


TENSORS_NAME = "state.safetensors"
STATE_NAME = "trainer_state.json"
METRICS_NAME = "metrics.jsonl"
_FOLDER = re.compile(r"checkpoint-(\d+)")


@dataclass
class Progress:
    """
    Everything a run must remember.

    Args:
        state ([`ESState`]): Where the search stands.
        settings (`dict`): The settings that the result depends on; another run's checkpoint is refused by them.
        best_mean (`torch.Tensor`, *optional*): ψ of the best validation so far.
        best_generation (`int`, *optional*): When that was.
        best_loss (`float`, *optional*): Its mean validation loss.
        references (`dict`): Validation results of what meta-training is compared with.
        cost (`dict`): Inner steps, seconds and diverged candidates so far.
    """

    state: ESState
    settings: dict[str, Any]
    best_mean: torch.Tensor | None = None
    best_generation: int | None = None
    best_loss: float | None = None
    references: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(
        default_factory=lambda: {"inner_steps": 0, "evaluations": 0, "seconds": 0.0, "num_diverged": 0}
    )


def save_checkpoint(output_dir: Path, progress: Progress, keep: int) -> Path:
    """
    Writes `checkpoint-<generation>` and removes all but the last `keep`.

    Args:
        output_dir (`Path`): The run's folder.
        progress ([`Progress`]): What to write.
        keep (`int`): Checkpoints to keep, at least one.

    Returns:
        `Path`: The checkpoint's folder.

    Raises:
        CheckpointError: If it cannot be written, such as on a full disk. Earlier checkpoints are then untouched.
    """
    folder = output_dir / f"checkpoint-{progress.state.generation}"
    if folder.exists():  # complete, and of the same generation: the same content
        return folder
    partial = output_dir / f".{folder.name}.partial"
    tensors = {f"optimizer.{name}": tensor for name, tensor in progress.state.optimizer.items()}
    tensors |= {"mean": progress.state.mean, "average": progress.state.average.clone()}
    if progress.best_mean is not None:
        tensors["best_mean"] = progress.best_mean
    values = {
        "generation": progress.state.generation,
        "settings": progress.settings,
        "best_generation": progress.best_generation,
        "best_loss": progress.best_loss,
        "references": progress.references,
        "cost": progress.cost,
    }
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial / TENSORS_NAME)
        with open(partial / STATE_NAME, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"Checkpoint {folder} could not be written ({error}); free some disk space and resume from the last one."
        ) from error
    for old in list_checkpoints(output_dir)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Returns the complete checkpoints of a run, oldest first."""
    if not output_dir.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> Progress:
    """
    Reads a checkpoint.

    Args:
        folder (`Path`): The checkpoint.
        settings (`dict`): This run's settings, which must be those of the run that wrote it.

    Returns:
        [`Progress`]

    Raises:
        CheckpointError: If it is not a checkpoint, is damaged, or belongs to other settings, named in the message.
    """
    try:
        values = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS_NAME)
        saved_settings, generation = values["settings"], values["generation"]
        mean, average = tensors["mean"], tensors["average"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} is not a readable meta-training checkpoint ({error}); name another, or start anew."
        ) from error
    own_settings = json.loads(json.dumps(settings))
    changed = sorted(
        name for name in {*saved_settings, *own_settings} if saved_settings.get(name) != own_settings.get(name)
    )
    if changed:
        raise CheckpointError(
            f"The settings of {folder} differ from this run's in {', '.join(changed)}; restore them, or start anew in "
            "another output_dir."
        )
    optimizer = {name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")}
    return Progress(
        state=ESState(mean, generation, optimizer, average),
        settings=own_settings,
        best_mean=tensors.get("best_mean"),
        best_generation=values["best_generation"],
        best_loss=values["best_loss"],
        references=values["references"],
        cost=values["cost"],
    )


def append_metrics(path: Path, metrics: dict[str, float]) -> None:
    """
    Adds a generation's metrics as a line of JSON.

    Raises:
        CheckpointError: If it cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written ({error}); free some disk space and resume from the last checkpoint."
        ) from error


def truncate_metrics(path: Path, generation: int) -> None:
    """Drops the lines of generations that will run again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _generation_of(line) <= generation]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    partial.replace(path)


def _generation_of(line: str) -> float:
    """A process that is killed while it writes leaves half a line; it goes."""
    try:
        return json.loads(line)["generation"]
    except (ValueError, KeyError):
        return math.inf
