"""The processes of a launcher: what they do together, errors included, and how they are asked to stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from hf_l3rs.errors import ConfigError, L3RSError, reason


logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def own_share(accelerator: Accelerator, num_jobs: int) -> range:
    """Returns which of so many jobs are this process's own: the same ones at every call."""
    return range(accelerator.process_index, num_jobs, accelerator.num_processes)


def share_out(
    accelerator: Accelerator, jobs: Sequence[Job], execute: Callable[[Job], Outcome], title: str | None = None
) -> list[Outcome]:
    """Executes each job on one process. Returns all outcomes, in the order of the jobs, on every process."""
    shares = own_share(accelerator, len(jobs))
    with tqdm(shares, desc=title, unit="run", disable=title is None or not accelerator.is_main_process) as bar:
        outcomes = gather_object([(index, execute(jobs[index])) for index in bar])
    return [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]


def on_main_process(accelerator: Accelerator, execute: Callable[[], Outcome]) -> Outcome:
    """Executes something on the main process alone. Every process returns its outcome, or raises its error."""
    (outcome,) = on_every_process(accelerator, execute, takes_part=accelerator.is_main_process)
    return outcome


def on_every_process(
    accelerator: Accelerator, execute: Callable[[], Outcome], *, takes_part: bool = True
) -> list[Outcome]:
    """Executes something on every process that takes part. All return all outcomes, or raise the error of one."""
    own: list[tuple[Any, L3RSError | None]] = []
    if takes_part:
        try:
            own = [(execute(), None)]
        except L3RSError as error:
            if accelerator.num_processes == 1:
                raise
            own = [(None, error)]
    outcomes = gather_object(own)
    for _, failure in outcomes:
        if failure is not None:
            raise failure
    return [outcome for outcome, _ in outcomes]


def make_accelerator(report_to: str | None = None, project_dir: str | Path | None = None) -> Accelerator:
    """Joins the processes of `torchrun`, also without a GPU. `report_to` is a tracker of Accelerate or `"all"`."""
    installed = [str(kind) for kind in get_available_trackers()]
    if report_to is not None and report_to not in installed and not (report_to == "all" and installed):
        raise ConfigError(
            f"report_to must be a tracker whose package is installed ({', '.join(installed) or 'none is'}), "
            f"got {report_to!r}; install one that Accelerate knows, or leave report_to out."
        )
    return Accelerator(log_with=report_to, project_dir=project_dir, cpu=not torch.accelerator.is_available())


def start_trackers(accelerator: Accelerator, project: str, settings: Mapping[str, Any]) -> None:
    """Starts the trackers of an Accelerator under the name of a project, and tells them the run's scalar settings."""
    flat = pd.json_normalize(dict(settings)).to_dict("records")[0]
    try:
        scalars = {name: value for name, value in flat.items() if isinstance(value, (int, float, str, bool))}
        accelerator.init_trackers(project, config=scalars)
    except Exception as error:  # of every kind, as trackers have their own
        names = ", ".join(tracker.name.lower() for tracker in accelerator.log_with)
        raise ConfigError(
            f"report_to is {names}, which does not start ({reason(error)}); set it up as its package asks, wandb by "
            "`wandb login` or WANDB_MODE=offline in the environment, or leave report_to out."
        ) from error


class Interruption:
    """Whether somebody asked the process to end, by a signal."""

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Inside, the first SIGINT or SIGTERM is a request and a second one ends the process, as it would outside."""
        if threading.current_thread() is not threading.main_thread():  # only there does Python let handlers be set
            yield
            return
        self._previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in self.signals}
        try:
            for number in self.signals:
                signal.signal(number, self._request)
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self._previous[signal.Signals(number)])
        logger.warning("Stopping after this generation; the checkpoint will resume from there.")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many CPU threads inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
