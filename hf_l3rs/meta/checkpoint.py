"""Checkpoints of a meta-training run: safetensors and JSON, with checksums, in a folder that appears whole or not."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from hf_l3rs.errors import CheckpointError, ConfigError, StorageError
from hf_l3rs.files import write_folder
from hf_l3rs.meta.outer import OuterState


logger = logging.getLogger(__name__)

TENSORS_NAME = "state.safetensors"
STATE_NAME = "trainer_state.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")
_OPTIMIZER, _ESTIMATOR = "optimizer.", "estimator."  # names of tensors begin with these

# What is counted over a run.
NO_COST: dict[str, float] = {
    "inner_steps": 0,
    "cost_in_plain_steps": 0,
    "evaluations": 0,
    "seconds": 0.0,
    "num_diverged": 0,
}


@dataclass
class Progress:
    """
    Everything a run must remember.

    Args:
        state ([`OuterState`]): Where meta-training stands.
        settings (`dict`): The settings that the result depends on; another run's checkpoint is refused by them.
        best_mean (`torch.Tensor`, *optional*): ψ of the best validation so far.
        best_generation (`int`, *optional*): When that was.
        best_loss (`float`, *optional*): Its mean validation loss.
        references (`dict`): Validation losses of what meta-training is compared with; infinite where it diverged.
        cost (`dict`): Inner steps, seconds and diverged candidates so far.
        carried (`dict`): What the estimator carries over to the next generation: tensors by name.
    """

    state: OuterState
    settings: dict[str, Any]
    best_mean: torch.Tensor | None = None
    best_generation: int | None = None
    best_loss: float | None = None
    references: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=NO_COST.copy)
    carried: dict[str, torch.Tensor] = field(default_factory=dict)


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
    carried = _prefixed(_ESTIMATOR, progress.carried)
    tensors = safetensors.torch.save({**_tensors(progress.state, progress.best_mean), **carried})
    values = plain_json(
        {
            "generation": progress.state.generation,
            "settings": progress.settings,
            "best_generation": progress.best_generation,
            "best_loss": progress.best_loss,
            "references": progress.references,
            "cost": progress.cost,
            "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        }
    )
    state = json.dumps({"sha256": hashlib.sha256(_canonical(values)).hexdigest(), **values}, indent=2)
    try:
        write_folder(folder, {TENSORS_NAME: tensors, STATE_NAME: state.encode()})
    except StorageError as error:
        raise CheckpointError(
            f"Checkpoint {folder} could not be written ({error.__cause__}); free some disk space and resume from the "
            "last one."
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


def load_checkpoint(folder: Path, settings: dict[str, Any], like: OuterState | None = None) -> Progress:
    """
    Reads a checkpoint.

    Args:
        folder (`Path`): The checkpoint.
        settings (`dict`): This run's settings, which must be those of the run that wrote it.
        like ([`OuterState`], *optional*): A state of this run whose tensors those of the checkpoint must resemble.

    Returns:
        [`Progress`]

    Raises:
        CheckpointError: If it is not a checkpoint, is damaged, or belongs to other settings, named in the message.
    """
    own_settings = plain_json(settings)
    try:
        values = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        _check_sum(STATE_NAME, values.pop("sha256"), _canonical(values))
        _check_settings(folder, values["settings"], own_settings)
        data = (folder / TENSORS_NAME).read_bytes()
        _check_sum(TENSORS_NAME, values["tensors_sha256"], data)
        tensors = safetensors.torch.load(data)
        carried = _with_prefix(_ESTIMATOR, tensors)
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_ESTIMATOR)}
        _check_tensors(own, like, has_best=values["best_generation"] is not None)
        optimizer = _with_prefix(_OPTIMIZER, tensors)
        return Progress(
            state=OuterState(tensors["mean"], values["generation"], optimizer, tensors["average"]),
            settings=own_settings,
            best_mean=tensors.get("best_mean"),
            best_generation=values["best_generation"],
            best_loss=values["best_loss"],
            references={name: math.inf if loss is None else loss for name, loss in values["references"].items()},
            # of older checkpoints, whose runs took plain steps as far as they tell
            cost={"cost_in_plain_steps": values["cost"]["inner_steps"], **values["cost"]},
            carried=carried,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        reason = " ".join((f"no {error}" if isinstance(error, KeyError) else str(error)).split())
        raise _DamagedError(
            f"{folder} is not a readable meta-training checkpoint ({reason}); name another, or start anew."
        ) from error


def load_newest_intact(output_dir: Path, settings: dict[str, Any], like: OuterState | None = None) -> Progress:
    """
    Reads the last checkpoint of a run that can be resumed, and warns of each later one that is damaged.

    Args:
        output_dir (`Path`): The run's folder, with at least one checkpoint.
        settings (`dict`): As of [`load_checkpoint`].
        like ([`OuterState`], *optional*): As of [`load_checkpoint`].

    Returns:
        [`Progress`]

    Raises:
        CheckpointError: If none is intact, or the last intact one belongs to other settings.
    """
    *_, last = checkpoints = list_checkpoints(output_dir)
    for folder in reversed(checkpoints):
        try:
            return load_checkpoint(folder, settings, like)
        except _DamagedError as error:
            logger.warning("%s Looking for an earlier one.", error)
    raise CheckpointError(
        f"None of the {len(checkpoints)} checkpoints of {output_dir}, {last.name} the last, is intact; start anew in "
        "another output_dir."
    )


def set_aside_after(output_dir: Path, generation: int) -> None:
    """Renames the checkpoints of later generations, which will run again, so that they neither count nor are lost."""
    for folder in list_checkpoints(output_dir):
        if int(folder.name.rpartition("-")[2]) <= generation:
            continue
        aside = folder.with_name(f"{folder.name}.set-aside")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            folder.rename(aside)
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be renamed ({error}); move it elsewhere.") from error
        logger.warning("Resuming from generation %d; %s is kept as %s.", generation, folder.name, aside.name)


def plain_json(values: Any) -> Any:
    """
    Returns values as strict JSON gives them back: tuples become lists, and what is not finite becomes null.

    Raises:
        ConfigError: If JSON cannot hold one of them.
    """
    try:
        return json.loads(json.dumps(values), parse_constant=lambda name: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The settings of a run must be plain JSON values, but one is not ({error}); turn it into text or numbers."
        ) from error


class _DamagedError(CheckpointError):
    """An earlier checkpoint may do."""


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _check_sum(name: str, expected: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != expected:
        raise ValueError(f"{name} does not have the checksum that it was written with")


def _check_settings(folder: Path, saved: dict[str, Any], own: dict[str, Any]) -> None:
    changed = sorted(name for name in {*saved, *own} if saved.get(name) != own.get(name))
    if changed:
        raise CheckpointError(
            f"The settings of {folder} differ from this run's in {', '.join(changed)}; restore them, or start anew in "
            "another output_dir."
        )


def _check_tensors(tensors: dict[str, torch.Tensor], like: OuterState | None, has_best: bool) -> None:
    expected = tensors if like is None else _tensors(like, like.mean if has_best else None)
    if tensors.keys() != expected.keys():
        raise ValueError(f"its tensors are {sorted(tensors)} in place of {sorted(expected)}")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (expected[name].shape, expected[name].dtype):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} in place of {tuple(expected[name].shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} is not finite")


def _tensors(state: OuterState, best_mean: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = _prefixed(_OPTIMIZER, state.optimizer)
    tensors |= {"mean": state.mean, "average": state.average}
    if best_mean is not None:
        tensors["best_mean"] = best_mean
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
