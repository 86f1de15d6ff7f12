"""The folder of a meta-training run: one run at a time uses it, resumes from it, logs and saves in it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from hf_l3rs.errors import CheckpointError, StorageError
from hf_l3rs.files import PathLike, append_line, write_files
from hf_l3rs.meta.checkpoint import (
    Progress,
    list_checkpoints,
    load_checkpoint,
    load_newest_intact,
    plain_json,
    save_checkpoint,
    set_aside_after,
)
from hf_l3rs.meta.curve import CURVE_NAME, draw_curve
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.meta.processes import Processes


logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
# In place of a checkpoint's folder: the last intact one that is there.
LAST = "last"
LOCK_NAME = ".lock"


class RunFolder:
    """
    Where a run keeps its checkpoints and metrics. One process writes; if it cannot, all stop.

    Args:
        path (`str` or `os.PathLike`): The folder; made if absent.
        keep (`int`): Checkpoints to keep, at least one.
        processes ([`Processes`]): Those of the run.
    """

    def __init__(self, path: PathLike, keep: int, processes: Processes) -> None:
        self.path = Path(path)
        self._keep, self._processes = keep, processes

    def check_free(self, resume: str | None) -> None:
        """
        Refuses a folder that [`~RunFolder.opened`] would refuse, before model and images are there.

        Args:
            resume (`str`, *optional*): As of [`~RunFolder.opened`].

        Raises:
            CheckpointError: If another run uses the folder, or its checkpoints are there and it is not resumed.
            StorageError: If the folder cannot be written.
        """

        def check() -> None:
            if os.path.exists(self.path):  # false, too, for what no file system has, which opened() tells
                with sole_use(self.path):
                    self._refuse_another_run(resume)

        self._processes.on_main(check)

    @contextmanager
    def opened(self, fresh: Progress, like: OuterState, resume: str | None) -> Iterator[Progress]:
        """
        Has the folder to itself inside, and gives the progress from which the run goes on.

        Args:
            fresh ([`Progress`]): That of a new run.
            like ([`OuterState`]): A state whose tensors those of a checkpoint must resemble.
            resume (`str`, *optional*): A checkpoint's folder, or `"last"` for the last intact one of this folder.

        Raises:
            CheckpointError:
                If another run uses the folder or its checkpoints are there, or the one to resume from does not fit.
            StorageError: If the folder cannot be written.
        """
        with ExitStack() as stack:

            def prepare() -> int:
                stack.enter_context(sole_use(self.path))
                found = self._find(fresh, like, resume)
                generation = 0 if found is None else found.state.generation
                set_aside_after(self.path, generation)
                truncate_metrics(self.path, generation)
                return generation

            def load() -> None:
                source = self.path / f"checkpoint-{generation}" if resume in (None, LAST) else Path(resume)
                progress.append(load_checkpoint(source, fresh.settings, like))

            progress = [fresh]
            generation = self._processes.on_main(prepare)
            if generation:
                self._processes.on_each(load)
            yield progress[-1]

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint; see [`~hf_l3rs.meta.checkpoint.save_checkpoint`]."""

        def save() -> None:
            save_checkpoint(self.path, progress, self._keep)

        self._processes.on_main(save)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Adds a generation's metrics; see [`append_metrics`]."""
        self._processes.on_main(lambda: append_metrics(self.path, metrics))

    def draw_curve(self) -> None:
        """Draws the metrics, where matplotlib is there; see [`~hf_l3rs.meta.curve.draw_curve`]."""
        if find_spec("matplotlib") is not None:
            self._processes.on_main(lambda: draw_curve(self.path / METRICS_NAME, self.path / CURVE_NAME))

    def _find(self, fresh: Progress, like: OuterState, resume: str | None) -> Progress | None:
        """Returns the progress to resume from, if any; another run's are never written over."""
        checkpoints = list_checkpoints(self.path)
        if resume == LAST and checkpoints:
            return load_newest_intact(self.path, fresh.settings, like)
        if resume == LAST:
            logger.info("There is no checkpoint in %s yet; starting anew.", self.path)
            return None
        self._refuse_another_run(resume)
        return None if resume is None else load_checkpoint(Path(resume), fresh.settings, like)

    def _refuse_another_run(self, resume: str | None) -> None:
        checkpoints = [] if resume == LAST else list_checkpoints(self.path)
        if checkpoints and (resume is None or Path(resume).resolve().parent != self.path.resolve()):
            raise CheckpointError(
                f"{self.path} already holds {checkpoints[-1].name}; resume with resume_from_checkpoint='last', or "
                "choose another output_dir."
            )


@contextmanager
def sole_use(output_dir: Path) -> Iterator[None]:
    """
    Makes a run's folder, and keeps other runs out of it until the end, or until the process dies, however it dies.

    Raises:
        CheckpointError: If another run uses it.
        StorageError: If it cannot be made or written to.
    """
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


def append_metrics(output_dir: Path, metrics: Mapping[str, float]) -> None:
    """
    Adds a generation's metrics as a line of strict JSON: what is not finite is null.

    Raises:
        StorageError: If it cannot be written.
    """
    append_line(output_dir / METRICS_NAME, json.dumps(plain_json(dict(metrics)), allow_nan=False))


def truncate_metrics(output_dir: Path, generation: int) -> None:
    """
    Drops the lines of generations that will run again, and half a last line, which a process leaves that is killed.

    Raises:
        CheckpointError: If the file is not a run's.
        StorageError: If it cannot be written.
    """
    path = output_dir / METRICS_NAME
    if not path.exists():
        return
    try:
        *lines, rest = path.read_bytes().split(b"\n")
        lines += [rest] if _is_whole(rest) else []
        kept = [line for line in lines if _generation_of(line) <= generation]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} does not hold a generation's metrics on every line ({reason}); move it away."
        ) from error
    if rest or len(kept) < len(lines):
        write_files(output_dir, {METRICS_NAME: b"".join(line + b"\n" for line in kept)})


def _is_whole(line: bytes) -> bool:
    try:
        return bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


def _generation_of(line: bytes) -> int:
    generation = json.loads(line)["generation"]
    if not isinstance(generation, int):
        raise ValueError(f"generation is {generation!r}")
    return generation
