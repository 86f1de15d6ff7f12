"""
Tries decays for the direction adam of an L3RS on validation tasks, and saves it with the best: these are settings that
evolution, which only moves the network's weights, cannot reach.

    python recipes/select_adam_betas.py recipes/configs/evaluate_resnet_tiny_fashion.yaml \\
        --l3rs outputs/resnet_tiny_fashion_short/l3rs --output_dir outputs/resnet_tiny_fashion_betas

OUTPUT_DIR gets betas.csv (raw rows) and l3rs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hf_l3rs import L3RSArtifact, L3RSNetwork
from hf_l3rs.errors import L3RSError
from hf_l3rs.evaluation.arguments import EvaluationArguments
from hf_l3rs.evaluation.baselines import l3rs_contender
from hf_l3rs.evaluation.benchmark import Run, run_all
from hf_l3rs.evaluation.report import final_losses, mean_and_stderr
from hf_l3rs.evaluation.results import write_rows
from hf_l3rs.hub.artifact import load_network
from hf_l3rs.meta.tracking import make_accelerator
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments
from hf_l3rs.tasks.build import build


BETAS = ((0.9, 0.99), (0.9, 0.95), (0.8, 0.99), (0.8, 0.95), (0.7, 0.95), (0.7, 0.9), (0.6, 0.9))


@dataclass
class SelectionArguments:
    """What the decays are judged by."""

    num_steps: int = field(default=20, metadata={"help": "Length of the runs."})
    num_validation_runs: int = field(default=16, metadata={"help": "Validation tasks."})


def with_betas(network: L3RSNetwork, betas: tuple[float, float]) -> L3RSNetwork:
    """Returns the same meta-weights with other decays."""
    changed = L3RSNetwork(network.config.replace(adam_betas=betas))
    changed.load_state_dict(network.state_dict())
    return changed


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Returns the chosen decays."""
    model_args, task_args, args, selection = parse_arguments(
        (ModelArguments, TaskArguments, EvaluationArguments, SelectionArguments), argv, description=__doc__
    )
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    model, _, validation = build(model_args, task_args, args.seed)
    model.to(accelerator.device)
    network, output_dir = load_network(args.l3rs), Path(args.output_dir)
    contenders = {str(betas): l3rs_contender(with_betas(network, betas), str(betas)) for betas in BETAS}
    runs = [
        Run(contender, task, selection.num_steps)
        for contender in contenders.values()
        for task in range(selection.num_validation_runs)
    ]
    rows = run_all(accelerator, model, validation, args.seed, runs, "trying decays")
    by_betas = final_losses(rows)[selection.num_steps]
    losses = {betas: mean_and_stderr([row.loss for row in by_betas[str(betas)].values()]) for betas in BETAS}
    best = min(losses, key=lambda betas: losses[betas][0])
    if accelerator.is_main_process:
        write_rows(rows, output_dir / "betas.csv")
        L3RSArtifact(with_betas(network, best)).save_pretrained(output_dir / "l3rs")
        for betas, (mean, stderr) in losses.items():
            sys.stdout.write(f"{betas}: {mean:.4f} ± {stderr:.4f}{'  <- best' if betas == best else ''}\n")
    return best


if __name__ == "__main__":
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
