"""`hf-l3rs evaluate`: measures an L3RS against tuned hand-designed optimizers, and makes a release of it."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

from hf_l3rs.cli.shell import Answer
from hf_l3rs.distributed import on_main_process
from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments
from hf_l3rs.evaluation.job import EvaluationJob
from hf_l3rs.hub.artifact import L3RS_NAME, RESULTS_NAME, L3RSArtifact
from hf_l3rs.hub.publish import write_release
from hf_l3rs.meta.meta_trainer import make_accelerator
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


DESCRIPTION = """
Measures an L3RS against tuned hand-designed optimizers. The first argument is a settings file in YAML, as `hf-l3rs
init` writes it; options of the same names override it. Every learning rate of every baseline is tried on validation
tasks, then all run on the same unseen tasks. Every row is kept as it finishes: the same command goes on after an
interruption, with any number of processes. OUTPUT_DIR gets rows, a table, curves, and the L3RS with a card that shows
them, which `hf-l3rs push OUTPUT_DIR user/name` publishes.
"""


class Evaluated(NamedTuple):
    """
    What an evaluation gave.

    Args:
        table (`str`): The summary as Markdown, on every process.
        output_dir (`str`): Where everything is.
        is_main_process (`bool`): Whether this process is the one that tells.
    """

    table: str
    output_dir: str
    is_main_process: bool

    def describe(self) -> str:
        """Returns what is told at the end."""
        return f"\n{self.table}\n\nTables and curves are in {self.output_dir}; `hf-l3rs push` shares them."


def evaluate(
    argv: Sequence[str] | None = None,
    *,
    command: str = "hf-l3rs evaluate",
    description: str = DESCRIPTION,
    **parser: str,
) -> Evaluated:
    """
    Measures as a settings file and options say.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; that of the process by default.
        command (`str`, *optional*): What stands before it in the card, where it says how to measure again.
        description (`str`, *optional*): What `--help` begins with.
        parser: Further settings of the parser, such as `prog`.

    Returns:
        [`Evaluated`]

    Raises:
        L3RSError: Of whatever kind, if settings, model, data or the output folder do not allow the evaluation.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    model_args, task_args, args = parse_arguments(
        (ModelArguments, TaskArguments, EvaluationArguments), argv, description=description, **parser
    )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    job = EvaluationJob(model_args, task_args, args, make_accelerator())
    table = job.run(f"{command} {shlex.join(argv)}")
    artifact, output_dir = L3RSArtifact(job.network), job.output_dir
    on_main_process(
        job.accelerator, lambda: write_release(artifact, output_dir / L3RS_NAME, [output_dir / RESULTS_NAME])
    )
    return Evaluated(table, str(output_dir), job.accelerator.is_main_process)


def run(argv: Sequence[str]) -> Answer:
    """Runs the command with what follows its name."""
    evaluated = evaluate(argv, prog="hf-l3rs evaluate")
    return Answer(evaluated.describe() if evaluated.is_main_process else "", {"output_dir": evaluated.output_dir})
