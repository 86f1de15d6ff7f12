"""The folder of a meta-training run: its checkpoints, its metrics, and the lock that keeps other runs out."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from hf_l3rs.distributed import on_every_process, on_main_process
from hf_l3rs.errors import CheckpointError, ConfigError, StorageError
from hf_l3rs.files import PathLike, append_line, write_files, write_folder
from hf_l3rs.meta.outer import OuterState


logger = logging.getLogger(__name__)

TENSORS_NAME, STATE_NAME = "state.safetensors", "trainer_state.json"
METRICS_NAME, LOCK_NAME = "metrics.jsonl", ".lock"

# In place of a checkpoint's folder: the last intact one that is there.
LAST = "last"

_FOLDER = re.compile(r"checkpoint-(\d+)")
_ESTIMATOR = "estimator."  # names of the estimator's tensors begin with this
_PLAIN_VALUES = ("settings", "best_generation", "best_loss", "untrained_loss", "cost")
_STATE_TENSORS = tuple(name for name in OuterState._fields if name != "generation")

# What is counted over a run.
NO_COST: dict[str, float] = dict.fromkeys(
    ("inner_steps", "cost_in_plain_steps", "evaluations", "seconds", "num_diverged"), 0
)


@dataclass
class Progress:
    """Everything a run must remember."""

    state: OuterState
    settings: dict[str, Any]  # that its result depends on
    best_mean: torch.Tensor | None = None  # the meta-weights of the best validation
    best_generation: int | None = None
    best_loss: float | None = None
    untrained_loss: float | None = None  # of an untrained L3RS at validation; None, too, if it diverged
    cost: dict[str, float] = field(default_factory=NO_COST.copy)
    carried: dict[str, torch.Tensor] = field(default_factory=dict)  # from the estimator to the next generation


class RunFolder:
    """Where a run keeps its checkpoints, so many at most, and metrics. One process writes; if it cannot, all stop."""

    def __init__(self, path: PathLike, keep: int, accelerator: Accelerator) -> None:
        self.path = Path(path)
        self._keep, self._accelerator = keep, accelerator

    def check_free(self, resume: str | None) -> None:
        """Refuses early, before model and images are there, a folder that [`~RunFolder.opened`] would refuse."""

        def check() -> None:
            if os.path.exists(self.path):  # false, too, for a name that no file system has, which opened() tells
                with sole_use(self.path):
                    self._refuse_another_run(resume)

        on_main_process(self._accelerator, check)

    @contextmanager
    def opened(self, fresh: Progress, resume: str | None) -> Iterator[Progress]:
        """Has the folder to itself inside; gives `fresh`, or the progress at `resume`, a checkpoint or `"last"`."""
        with ExitStack() as stack:

            def prepare() -> Path | None:
                stack.enter_context(sole_use(self.path))
                self._refuse_another_run(resume)
                source = None if resume is None else Path(resume)
                if resume == LAST:
                    source = find_newest_intact(self.path, fresh.settings)
                done = 0 if source is None else load_checkpoint(source, fresh.settings).state.generation
                drop_after(self.path, done)
                return source

            source = on_main_process(self._accelerator, prepare)
            loaded = [fresh]
            if source is not None:
                on_every_process(self._accelerator, lambda: loaded.append(load_checkpoint(source, fresh.settings)))
            yield loaded[-1]

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint; see [`save_checkpoint`]."""
        on_main_process(self._accelerator, lambda: save_checkpoint(self.path, progress, self._keep))

    def log(self, metrics: Mapping[str, float]) -> None:
        """Adds a generation's metrics as a line of strict JSON: what is not finite is null."""
        line = json.dumps(plain_json(dict(metrics)), allow_nan=False)
        on_main_process(self._accelerator, lambda: append_line(self.path / METRICS_NAME, line))

    def _refuse_another_run(self, resume: str | None) -> None:
        """Another run's checkpoints are never written over."""
        checkpoints = [] if resume == LAST else list_checkpoints(self.path)
        if checkpoints and (resume is None or Path(resume).resolve().parent != self.path.resolve()):
            raise CheckpointError(
                f"{self.path} already holds {checkpoints[-1].name}; resume with resume_from_checkpoint='last', or "
                "choose another output_dir."
            )


@contextmanager
def sole_use(output_dir: Path) -> Iterator[None]:
    """Makes a run's folder, and keeps other runs out of it until the end, or until the process is killed."""
    write_files(output_dir, {})
    lock = FileLock(output_dir / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"Another run is using {output_dir}; wait until it ends, or choose another output_dir."
        ) from None
    except NotImplementedError:
        logger.warning("%s cannot be locked on this file system; let no other run use it meanwhile.", output_dir)
    except OSError as error:
        raise StorageError(f"{output_dir} cannot be written ({error}); choose another output_dir.") from error
    for rest in output_dir.glob(".checkpoint-*.tmp"):  # of a process that was killed while it wrote
        shutil.rmtree(rest, ignore_errors=True)
    try:
        yield
    finally:
        lock.release()


def save_checkpoint(output_dir: Path, progress: Progress, keep: int) -> Path:
    """Writes `checkpoint-<generation>`, whole or not at all; then removes all but the last `keep`."""
    folder = output_dir / f"checkpoint-{progress.state.generation}"
    if folder.exists():  # complete, and of the same generation: the same content
        return folder
    tensors = {f"{_ESTIMATOR}{name}": tensor for name, tensor in progress.carried.items()}
    tensors |= {name: getattr(progress.state, name) for name in _STATE_TENSORS}
    if progress.best_mean is not None:
        tensors["best_mean"] = progress.best_mean
    data = safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    values = plain_json(
        {"generation": progress.state.generation, **{name: getattr(progress, name) for name in _PLAIN_VALUES}}
    )
    state = json.dumps({"sha256": _checksum(values, data), **values}, indent=2)
    try:
        write_folder(folder, {TENSORS_NAME: data, STATE_NAME: state.encode()})
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


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> Progress:
    """Reads a checkpoint of a run of these settings. Others are refused by their names, and damage with its reason."""
    try:
        values = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        data = (folder / TENSORS_NAME).read_bytes()
        if values.pop("sha256") != _checksum(values, data):
            raise ValueError("it does not have the checksum that it was written with")
        own, saved = plain_json(settings), values["settings"]
        if changed := sorted(name for name in {*saved, *own} if saved.get(name) != own.get(name)):
            raise CheckpointError(
                f"The settings of {folder} differ from this run's in {', '.join(changed)}; restore them, or start "
                "anew in another output_dir."
            )
        tensors = safetensors.torch.load(data)
        return Progress(
            state=OuterState(**{name: tensors[name] for name in _STATE_TENSORS}, generation=values["generation"]),
            best_mean=tensors.get("best_mean"),
            **{name: values[name] for name in _PLAIN_VALUES},
            carried={name.removeprefix(_ESTIMATOR): t for name, t in tensors.items() if name.startswith(_ESTIMATOR)},
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        reason = " ".join((f"no {error}" if isinstance(error, KeyError) else str(error)).split())
        raise _DamagedError(
            f"{folder} is not a readable meta-training checkpoint ({reason}); name another, or start anew."
        ) from error


def find_newest_intact(output_dir: Path, settings: dict[str, Any]) -> Path | None:
    """Returns a run's last checkpoint that is not damaged, and warns of later ones; `None` where there is none."""
    checkpoints = list_checkpoints(output_dir)
    for folder in reversed(checkpoints):
        try:
            load_checkpoint(folder, settings)
            return folder
        except _DamagedError as error:
            logger.warning("%s Looking for an earlier one.", error)
    if checkpoints:
        raise CheckpointError(
            f"None of the {len(checkpoints)} checkpoints of {output_dir}, {checkpoints[-1].name} the last, is intact; "
            "start anew in another output_dir."
        )
    logger.info("There is no checkpoint in %s yet; starting anew.", output_dir)
    return None


def drop_after(output_dir: Path, generation: int) -> None:
    """Drops checkpoints and metrics of later generations, which will run again, and the half line of a killed run."""
    for folder in list_checkpoints(output_dir):
        if int(folder.name.rpartition("-")[2]) > generation:
            logger.warning("Resuming from generation %d; %s is removed and will be made again.", generation, folder)
            shutil.rmtree(folder, ignore_errors=True)
    metrics = output_dir / METRICS_NAME
    if metrics.is_file():
        before = metrics.read_bytes()
        kept = b"".join(line + b"\n" for line in before.split(b"\n") if _generation_of(line) <= generation)
        if kept != before:
            write_files(output_dir, {METRICS_NAME: kept})


def plain_json(values: Any) -> Any:
    """Returns values as strict JSON gives them back: tuples become lists, and what is not finite becomes null."""
    try:
        return json.loads(json.dumps(values), parse_constant=lambda name: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The settings of a run must be plain JSON values, but one is not ({error}); turn it into text or numbers."
        ) from error


def with_earlier_cost(cost: Mapping[str, float], earlier: Mapping[str, Any]) -> dict[str, float]:
    """Adds what an earlier run cost, by its summary."""
    return {name: value + earlier.get(name, 0) for name, value in cost.items()}


class _DamagedError(CheckpointError):
    """An earlier checkpoint may do."""


def _checksum(values: dict[str, Any], data: bytes) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + data).hexdigest()


def _generation_of(line: bytes) -> float:
    """Infinite of what is not a line of metrics."""
    try:
        return float(json.loads(line)["generation"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
