"""Work that several processes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from hf_l3rs.errors import L3RSError


Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def share_out(
    accelerator: Accelerator, jobs: Sequence[Job], execute: Callable[[Job], Outcome], title: str
) -> list[Outcome]:
    """Executes each job on one process; every process returns all outcomes, in the order of the jobs."""
    mine = range(accelerator.process_index, len(jobs), accelerator.num_processes)
    with tqdm(mine, desc=title, unit="run", disable=not accelerator.is_main_process) as bar:
        outcomes = gather_object([(index, execute(jobs[index])) for index in bar])
    return [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]


def on_main_process(accelerator: Accelerator, execute: Callable[[], Outcome]) -> Outcome:
    """Executes something on the main process alone; every process returns its outcome, or raises its error."""
    outcome: list[tuple[Outcome | None, L3RSError | None]] = [(None, None)]
    if accelerator.is_main_process:
        try:
            outcome = [(execute(), None)]
        except L3RSError as error:
            outcome = [(None, error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]
