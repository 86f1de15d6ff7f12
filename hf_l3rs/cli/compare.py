"""`hf-l3rs compare`: a learned optimizer and its rivals on a model and data of one's own, paired."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from hf_l3rs.cli.init import survey_data
from hf_l3rs.distributed import make_accelerator
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.job import EvaluationArguments, EvaluationJob
from hf_l3rs.hub.artifact import l3rs_of_run
from hf_l3rs.settings import OptionParser
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments


SEED = 1000
# At the best of eleven rates that are tried on other tasks, and as they are.
TUNED = ("Adam constant", "Schedule-free AdamW")
UNTUNED = ("Trainer's default", "Adam at 1e-3", "Schedule-free AdamW at 2.5e-3", "Linear probe")

DESCRIPTION = """
Fine-tunes MODEL on DATA with a learned optimizer, with Adam and schedule-free AdamW, tuned and untuned, with the
Trainer's default and with a linear probe: for every seed the same new head, batches and test images. OUTPUT_DIR gets
rows, table and curves; the same command goes on after an interruption.
"""


def _parser() -> OptionParser:
    parser = OptionParser(prog="hf-l3rs compare", description=DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", help="name of a released learned optimizer, folder, or Hub id")
    parser.add_argument("--model", required=True, help="folder or Hub id of an image classifier")
    parser.add_argument("--data", required=True, help="Hub id, imagefolder or parquet file")
    parser.add_argument("--name", help="configuration of the data set")
    parser.add_argument("--split", help="split to fine-tune and test on; by its name by default")
    parser.add_argument("--steps", type=int, default=20, help="length of a run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each optimizer (default: %(default)s)")
    parser.add_argument("--search_seeds", "--search-seeds", type=int, default=2,
                        help="runs at each rate of a search; 0 leaves it out (default: %(default)s)")  # fmt: skip
    parser.add_argument("--batch_size", "--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--output_dir", "--output-dir", default="outputs/compare", help="default: %(default)s")
    return parser


def run(argv: Sequence[str]) -> str:
    arguments = _parser().parse_args(argv)
    if arguments.search_seeds < 0:
        raise ConfigError(f"--search_seeds must be at least 0, got {arguments.search_seeds}; 0 searches no rate.")
    args = EvaluationArguments(
        l3rs=str(l3rs_of_run(arguments.source) or arguments.source),
        setting="quick comparison",
        baselines=[*(TUNED if arguments.search_seeds else ()), *UNTUNED],
        horizons=[arguments.steps],
        num_tasks=arguments.seeds,
        num_search_tasks=arguments.search_seeds or 1,
        evaluate_every=max(1, arguments.steps // 5),
        seed=SEED,
        output_dir=arguments.output_dir,
        title=f"{Path(arguments.model).name} on {Path(arguments.data).name}: {arguments.seeds} seeds",
    )
    splits = {"name": arguments.name, "split": arguments.split, "test_split": arguments.split}
    data = survey_data(arguments.data, arguments.model, **splits)
    images = data.training if arguments.split or data.unseen is None else data.unseen
    task_args = TaskArguments(
        datasets=[DatasetArguments(**images)],
        num_classes=data.num_classes,
        batch_size=arguments.batch_size,
        evaluation_size=data.evaluation_size,
    )
    job = EvaluationJob(ModelArguments(base_model=arguments.model), task_args, args, make_accelerator())
    summary = job.run(shlex.join(["hf-l3rs", "compare", *argv]))
    return f"\n{summary}\n\nTable and curves are in {job.output_dir}."
