"""
Measures an L3RS against tuned hand-designed optimizers: the paper's figure 3 on any model, data set and optimizer.

    python recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml

First every learning rate of every baseline is tried on validation tasks, for every length of run; then all optimizers
run on the same unseen tasks. OUTPUT_DIR gets search.csv and rows.csv (raw), summary.md, curves.png and results.json
(for the model card). A search that is already in OUTPUT_DIR is used again.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from hf_l3rs import L3RS, L3RSNetwork
from hf_l3rs.errors import L3RSError
from hf_l3rs.evaluation.arguments import EvaluationArguments
from hf_l3rs.evaluation.baselines import Baseline, l3rs_contender, select_baselines
from hf_l3rs.evaluation.benchmark import Row, best_rates, comparison_runs, run_all, search_runs
from hf_l3rs.evaluation.plots import plot_learning_curves
from hf_l3rs.evaluation.report import Summary, runs_to_pay_back, steps_of_baselines, summarise, to_markdown, to_results
from hf_l3rs.evaluation.results import read_rows, write_rows
from hf_l3rs.files import write_files
from hf_l3rs.hub.results import Results, write_results
from hf_l3rs.meta.tracking import make_accelerator
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments
from hf_l3rs.tasks.build import build
from hf_l3rs.tasks.distribution import TaskDistribution


logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> str:
    """Returns the summary as Markdown."""
    model_args, task_args, args = parse_arguments(
        (ModelArguments, TaskArguments, EvaluationArguments), argv, description=__doc__
    )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    torch.set_num_threads(1)  # of many small runs, one a process is fastest
    accelerator = make_accelerator()
    baselines = select_baselines(args.baselines)
    model, tasks, search_tasks = build(model_args, task_args, args.seed)
    model.to(accelerator.device)
    network = L3RS.from_pretrained(args.l3rs).network
    output_dir = Path(args.output_dir)

    rates = best_rates(search(accelerator, model, search_tasks, baselines, args))
    contenders = [l3rs_contender(network)]
    if args.include_untrained:
        contenders.append(l3rs_contender(L3RSNetwork(network.config), "L3RS, untrained"))
    runs = comparison_runs(baselines, rates, contenders, args.num_tasks, args.horizons)
    rows = run_all(accelerator, model, tasks, args.seed, runs, "comparing", args.evaluate_every)

    summaries = summarise(rows, args.baselines)
    table = to_markdown(summaries, args.baselines) + "\n\n" + cost(network, summaries, args.baselines)
    if accelerator.is_main_process:
        command = "python recipes/meta_evaluate.py " + shlex.join(sys.argv[1:] if argv is None else argv)
        dataset = task_args.datasets[0]
        entries = to_results(
            summaries,
            args.baselines,
            dataset=dataset.hub_id or dataset.path,
            split=dataset.evaluation_split or dataset.batches_split,
            setting=args.setting,
            command=command,
        )
        write_rows(rows, output_dir / "rows.csv")
        write_results(Results(network.fingerprint(), tuple(entries)), output_dir / "results.json")
        write_files(output_dir, {"summary.md": f"# {args.title}\n\n{table}\n\n`{command}`\n".encode()})
        plot_learning_curves(rows, output_dir / "curves.png", args.title)
        sys.stdout.write(f"\n{table}\n\nTables and curves are in {output_dir}.\n")
    return table


def cost(network: L3RSNetwork, summaries: Sequence[Summary], baselines: Sequence[str]) -> str:
    """Says how many steps each length of run saves, and when meta-training has paid for itself."""
    inner_steps = network.config.meta_training.get("inner_steps")
    lines = []
    for summary in summaries:
        if summary.optimizer != "L3RS":
            continue
        needed = steps_of_baselines(summaries, baselines, summary.loss)
        line = f"- After {summary.num_training_steps} steps L3RS is where the best tuned baseline is after "
        line += "a number of steps that was not measured" if needed is None else f"{needed:.0f}"
        runs = runs_to_pay_back(inner_steps, summary.num_training_steps, needed) if inner_steps else None
        lines.append(
            f"{line}; the {inner_steps} steps of meta-training are saved after {runs} runs." if runs else f"{line}."
        )
    return "\n".join(lines)


def search(
    accelerator: Accelerator,
    model: nn.Module,
    tasks: TaskDistribution,
    baselines: Sequence[Baseline],
    args: EvaluationArguments,
) -> list[Row]:
    """Returns the rows of the learning-rate search, from an earlier call where they are complete."""
    path = Path(args.output_dir) / "search.csv"
    runs = search_runs(baselines, args.num_search_tasks, args.horizons)
    wanted = {(run.contender.name, run.contender.learning_rate, run.task, run.num_training_steps) for run in runs}
    if path.exists():
        rows = read_rows(path)
        if wanted <= {(row.optimizer, row.learning_rate, row.task, row.num_training_steps) for row in rows}:
            logger.info("Using the learning-rate search in %s.", path)
            return rows
    rows = run_all(accelerator, model, tasks, args.seed, runs, "searching learning rates")
    if accelerator.is_main_process:
        write_rows(rows, path)
    return rows


if __name__ == "__main__":
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
