"""What the processes of a launcher do together. Results do not depend on their number, and errors stop all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from hf_l3rs.errors import L3RSError


Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def own_share(accelerator: Accelerator, num_jobs: int) -> range:
    """Returns which of so many jobs are this process's own: the same ones at every call."""
    return range(accelerator.process_index, num_jobs, accelerator.num_processes)


def share_out(
    accelerator: Accelerator, jobs: Sequence[Job], execute: Callable[[Job], Outcome], title: str | None = None
) -> list[Outcome]:
    """
    Executes each job on one process.

    Args:
        accelerator (`Accelerator`): Knows the processes.
        jobs (`Sequence`): The same on every process.
        execute (`Callable`): What to do with a job. Its outcome is pickled where there are several processes.
        title (`str`, *optional*): Of a progress bar; there is none by default.

    Returns:
        `list`: The outcomes in the order of the jobs, the same on every process.
    """
    shares = own_share(accelerator, len(jobs))
    with tqdm(shares, desc=title, unit="run", disable=title is None or not accelerator.is_main_process) as bar:
        outcomes = gather_object([(index, execute(jobs[index])) for index in bar])
    return [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]


def on_main_process(accelerator: Accelerator, execute: Callable[[], Outcome]) -> Outcome:
    """Executes something on the main process alone. Every process returns its outcome, or raises its error."""
    (outcome,) = _together(accelerator, execute, accelerator.is_main_process)
    return outcome


def on_every_process(accelerator: Accelerator, execute: Callable[[], Outcome]) -> list[Outcome]:
    """Executes something on every process. All return all outcomes; if one process fails, all raise its error."""
    return _together(accelerator, execute, True)


def _together(accelerator: Accelerator, execute: Callable[[], Outcome], takes_part: bool) -> list[Outcome]:
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


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many CPU threads of torch inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
