"""`hf-l3rs evaluate`: measures an L3RS against tuned hand-designed optimizers, and makes a release of it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from hf_l3rs.distributed import make_accelerator, on_main_process
from hf_l3rs.evaluation.job import EvaluationArguments, EvaluationJob
from hf_l3rs.hub.artifact import L3RS_NAME, gather_release, save_network
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


DESCRIPTION = """
Measures an L3RS against tuned hand-designed optimizers. The first argument is a settings file in YAML, as `hf-l3rs
init` writes it; options of the same names override it. Every learning rate of every baseline is tried on validation
tasks, then all run on the same unseen tasks. Every row is kept as it finishes: the same command goes on after an
interruption, with any number of processes. OUTPUT_DIR gets rows, a table, curves, and the L3RS with a card that shows
them, which `hf-l3rs push OUTPUT_DIR user/name` publishes.
"""


def run(argv: Sequence[str]) -> str:
    model_args, task_args, args = parse_arguments(
        (ModelArguments, TaskArguments, EvaluationArguments), argv, description=DESCRIPTION, prog="hf-l3rs evaluate"
    )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    job = EvaluationJob(model_args, task_args, args, make_accelerator())
    table = job.run(f"hf-l3rs evaluate {shlex.join(argv)}")

    def release() -> None:
        save_network(job.network, job.output_dir / L3RS_NAME)
        gather_release(job.output_dir)

    on_main_process(job.accelerator, release)
    if not job.accelerator.is_main_process:
        return ""
    return f"\n{table}\n\nTables and curves are in {job.output_dir}; `hf-l3rs push` shares them."
