"""
Measures a released L3RS as its settings file in recipes/configs says: each of its cells beside tuned rivals. The cells
of a model are those of the paper's figure 3, and some more.

    python -m recipes.evaluate recipes/configs/resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 -m recipes.evaluate recipes/configs/resnet_tiny_fashion.yaml --only in_domain

Options override the settings of the file. After an interruption the same command goes on. Each cell has a folder in
OUTPUT_DIR with all that `hf-l3rs evaluate` writes. With `--store true` its rows go to recipes/results, from which
`make readme` makes the tables and pictures.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hf_l3rs.cli.main import run_script
from hf_l3rs.distributed import make_accelerator
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.job import EvaluationArguments, EvaluationJob
from hf_l3rs.settings import parse_settings
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments
from recipes.evidence.experiment import LETTERS, read_experiment, split_path
from recipes.evidence.stored import store


@dataclass
class CellArguments:
    """Which cells of a file."""

    only: list[str] = field(default_factory=list, metadata={"help": "Names of cells; all by default."})
    store: bool = field(default=False, metadata={"help": "Put the rows into recipes/results."})


TYPES = (ModelArguments, TaskArguments, EvaluationArguments, CellArguments)


def main(argv: Sequence[str] | None = None) -> str:
    """Returns the summaries of all cells as Markdown."""
    path, options = split_path(argv, TYPES, __doc__)
    cells = {name: parse_settings(TYPES, values, options) for name, values in read_experiment(path).cells.items()}
    if not cells:
        raise ConfigError(f"{path} has no evaluation with cells; `hf-l3rs evaluate` takes plain settings.")
    chosen = next(iter(cells.values()))[-1]
    unknown = [name for name in chosen.only if name not in cells]
    if unknown:
        raise ConfigError(f"Unknown cells {', '.join(unknown)}; {path} has {', '.join(cells)}.")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    accelerator = make_accelerator()
    jobs = {}  # all errors in settings before the first run
    for name in chosen.only or cells:
        model, tasks, evaluation, _ = cells[name]
        evaluation = replace(evaluation, output_dir=str(Path(evaluation.output_dir) / name))
        jobs[name] = EvaluationJob(model, tasks, evaluation, accelerator)
    command = f"python -m recipes.evaluate {shlex.join([path, *options])}"
    tables = []
    for name, job in jobs.items():
        tables.append(f"## {LETTERS[name]}{cells[name][2].title}\n\n{job.run(command)}")
        if chosen.store and accelerator.is_main_process:
            store(Path(cells[name][2].l3rs).name, name, job.output_dir)
    text = "\n\n".join(tables)
    if accelerator.is_main_process:
        sys.stdout.write(f"\n{text}\n")
    return text


if __name__ == "__main__":
    run_script(main)
