"""
Tries values of a setting of an L3RS, and its own, on validation tasks, and saves it with the best. It is for settings
that meta-training, which only moves the network's weights, cannot reach: the decays of the direction adam, and the
momentum of batch norm's statistics.

    python -m recipes.select_setting recipes/configs/mobilenet_v2_fashion.yaml --select batch_norm_momentum \\
        --lengths 10 20 --l3rs outputs/mobilenet_v2_fashion/second/l3rs --output_dir outputs/selected

OUTPUT_DIR gets SELECT.csv (raw rows) and l3rs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.main import run_script
from hf_l3rs.distributed import make_accelerator
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import l3rs_contender
from hf_l3rs.evaluation.benchmark import run_all
from hf_l3rs.evaluation.report import mean_and_stderr
from hf_l3rs.evaluation.store import RowStore, Run, final_rows, measurement_settings, ranked
from hf_l3rs.markdown import mean_with_stderr
from hf_l3rs.meta.checkpoint import NO_COST, with_earlier_cost
from hf_l3rs.meta.meta_arguments import warm_start
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import build_tasks
from hf_l3rs.validation import Range, check_fields
from recipes.evidence.experiment import own_settings


VALUES: dict[str, tuple[Any, ...]] = {
    "adam_betas": ((0.9, 0.99), (0.9, 0.95), (0.8, 0.99), (0.8, 0.95), (0.7, 0.95), (0.7, 0.9), (0.6, 0.9)),
    "batch_norm_momentum": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
}


@dataclass
class SelectionArguments:
    """What is chosen, and by what."""

    select: str = field(default="adam_betas", metadata={"help": f"One of {', '.join(VALUES)}."})
    lengths: list[int] = field(default_factory=lambda: [20], metadata={"help": "Lengths of the runs."})
    num_validation_runs: int = field(default=16, metadata={"help": "Validation tasks."})

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("lengths", "num_validation_runs"), Range(low=1))
        check_fields(self, {"select": tuple(VALUES), **counts})


def with_cost(network: L3RSNetwork, runs: Sequence[Run]) -> L3RSNetwork:
    """The same L3RS, with what was run to choose a setting among what it cost, so that the payback counts it."""
    config, inner_steps = network.config, sum(run.num_training_steps for run in runs)
    own = {**NO_COST, "inner_steps": inner_steps, "cost_in_plain_steps": inner_steps, "evaluations": len(runs)}
    summary = {**config.meta_training, **with_earlier_cost(own, config.meta_training)}
    return warm_start(network, config.layers, meta_training=summary)


def main(argv: list[str] | None = None) -> Any:
    """Returns the chosen value."""
    model_args, task_args, args, selection = own_settings(argv, SelectionArguments, __doc__)
    if model_args.more_base_models:
        raise ConfigError("A setting is chosen on one base model; leave out more_base_models.")
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    model, _, validation = build_tasks(model_args, task_args, args.seed)
    model.to(accelerator.device)
    network, output_dir = L3RSArtifact.from_pretrained(args.l3rs).network, Path(args.output_dir)
    layers = network.config.layers
    values = dict.fromkeys((*VALUES[selection.select], getattr(network.config, selection.select)))
    tried = {str(value): warm_start(network, layers, **{selection.select: value}) for value in values}
    runs = [
        Run(l3rs_contender(each, name), task, length)
        for name, each in tried.items()
        for length in selection.lengths
        for task in range(selection.num_validation_runs)
    ]
    store = RowStore(
        output_dir / f"{selection.select}.csv",
        measurement_settings(model, validation, model_args, task_args, args.seed),
    )
    rows = run_all(accelerator, model, validation, args.seed, runs, store, f"trying {selection.select}")
    finals = final_rows(rows)
    best = str(ranked(finals, ["optimizer"]).optimizer.iloc[0])
    if accelerator.is_main_process:
        L3RSArtifact(with_cost(tried[best], runs)).save_pretrained(output_dir / "l3rs")
        for name, loss in mean_and_stderr(finals.groupby("optimizer", sort=False).loss).iterrows():
            chosen = "  <- best" if name == best else ""
            stderr = None if math.isnan(loss["stderr"]) else loss["stderr"]  # of a single run
            sys.stdout.write(f"{name}: {mean_with_stderr(loss['mean'], stderr, 4)}{chosen}\n")
    return getattr(tried[best].config, selection.select)


if __name__ == "__main__":
    run_script(main)
