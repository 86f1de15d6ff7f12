"""
Tries decays for the direction adam of an L3RS on validation tasks, and saves it with the best: these are settings that
evolution, which only moves the network's weights, cannot reach.

    python recipes/select_adam_betas.py recipes/configs/evaluate_resnet_tiny_fashion.yaml \\
        --l3rs outputs/resnet_tiny_fashion_short/l3rs --output_dir outputs/resnet_tiny_fashion_betas

OUTPUT_DIR gets betas.csv (raw rows) and l3rs.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hf_l3rs import L3RSArtifact, L3RSNetwork
from hf_l3rs.commands.shell import run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.arguments import EvaluationArguments
from hf_l3rs.evaluation.baselines import l3rs_contender
from hf_l3rs.evaluation.benchmark import run_all
from hf_l3rs.evaluation.manifest import measurement_settings
from hf_l3rs.evaluation.report import mean_and_stderr
from hf_l3rs.evaluation.results import Run, final_rows, ranked
from hf_l3rs.evaluation.store import RowStore
from hf_l3rs.markdown import mean_with_stderr
from hf_l3rs.meta.tracking import make_accelerator
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments
from hf_l3rs.tasks.build import build_tasks
from hf_l3rs.validation import Range, check_fields


BETAS = ((0.9, 0.99), (0.9, 0.95), (0.8, 0.99), (0.8, 0.95), (0.7, 0.95), (0.7, 0.9), (0.6, 0.9))


@dataclass
class SelectionArguments:
    """What the decays are judged by."""

    num_steps: int = field(default=20, metadata={"help": "Length of the runs."})
    num_validation_runs: int = field(default=16, metadata={"help": "Validation tasks."})

    def __post_init__(self) -> None:
        check_fields(self, dict.fromkeys(("num_steps", "num_validation_runs"), Range(low=1)))


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
    if model_args.more_base_models:
        raise ConfigError("The decays are chosen on one base model; leave out more_base_models.")
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    model, _, validation = build_tasks(model_args, task_args, args.seed)
    model.to(accelerator.device)
    network, output_dir = L3RSArtifact.from_pretrained(args.l3rs).network, Path(args.output_dir)
    by_name = {str(betas): betas for betas in BETAS}
    runs = [
        Run(contender, task, selection.num_steps)
        for contender in (l3rs_contender(with_betas(network, betas), name) for name, betas in by_name.items())
        for task in range(selection.num_validation_runs)
    ]
    store = RowStore(
        output_dir / "betas.csv", measurement_settings(model, validation, model_args, task_args, args.seed)
    )
    rows = run_all(accelerator, model, validation, args.seed, runs, store, "trying decays")
    finals = final_rows(rows)
    best = by_name[ranked(finals, ["optimizer"]).optimizer.iloc[0]]
    if accelerator.is_main_process:
        L3RSArtifact(with_betas(network, best)).save_pretrained(output_dir / "l3rs")
        for name, loss in mean_and_stderr(finals.groupby("optimizer", sort=False).loss).iterrows():
            chosen = "  <- best" if name == str(best) else ""
            stderr = None if math.isnan(loss["stderr"]) else loss["stderr"]  # of a single run
            sys.stdout.write(f"{name}: {mean_with_stderr(loss['mean'], stderr, 4)}{chosen}\n")
    return best


if __name__ == "__main__":
    run_script(main)
