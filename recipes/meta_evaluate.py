"""
Measures an L3RS against tuned hand-designed optimizers: the paper's figure 3 on any model, data set and optimizer.

    python recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml

First every learning rate of every baseline is tried on validation tasks, for every length of run; then all optimizers
run on the same unseen tasks. So does the data limit, the loss where a run's own batches may be revisited many times,
for runs of up to data_limit_max_steps; its search takes most of the time, and 0 leaves it out. OUTPUT_DIR gets
search.csv and rows.csv (raw), manifest.json (what they were measured with), summary.md, curves.png and results.json
(for the model card).

Rows are on disk as soon as their run is finished. After an interruption the same command goes on from there, with any
number of processes. A search is used again for another L3RS on the same model and data: name its folder as search_dir.
"""

from __future__ import annotations

import logging
import shlex
import sys

from hf_l3rs.errors import L3RSError
from hf_l3rs.evaluation.arguments import EvaluationArguments
from hf_l3rs.evaluation.job import EvaluationJob
from hf_l3rs.meta.tracking import make_accelerator
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments


def main(argv: list[str] | None = None) -> str:
    """Returns the summary as Markdown."""
    model_args, task_args, args = parse_arguments(
        (ModelArguments, TaskArguments, EvaluationArguments), argv, description=__doc__
    )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    job = EvaluationJob(model_args, task_args, args, make_accelerator())
    table = job.run("python recipes/meta_evaluate.py " + shlex.join(sys.argv[1:] if argv is None else argv))
    if job.accelerator.is_main_process:
        sys.stdout.write(f"\n{table}\n\nTables and curves are in {job.output_dir}.\n")
    return table


if __name__ == "__main__":
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
