"""
Shows what an L3RS does with every layer over a run on a validation task (the paper's figures 4 and 5).

    python -m recipes.trajectories recipes/configs/resnet_tiny_fashion.yaml --output_dir outputs/trajectories

OUTPUT_DIR gets trajectories.csv (step and mixture of every layer at every step), trajectories.png and behaviour.json,
two sentences on what the L3RS learned that recipes/release.py puts on the card. The run is as long as the longest that
the L3RS was meta-trained for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.benchmark import draw_task
from hf_l3rs.files import write_files
from hf_l3rs.hub.results import Results, last_part, write_results
from hf_l3rs.meta.meta_trainer import make_accelerator
from hf_l3rs.tasks.distribution import build_tasks
from hf_l3rs.validation import Range, check_fields


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # recipes is not installed

from recipes.evidence.behaviour import describe_behaviour
from recipes.evidence.experiment import own_settings
from recipes.evidence.trajectories import record_trajectory, to_csv
from recipes.evidence.trajectory_plots import TRAJECTORIES_NAME, plot_trajectories


@dataclass
class RunArguments:
    """The run that is shown."""

    num_steps: int | None = field(default=None, metadata={"help": "Its length; by default as meta-trained for."})
    task: int = field(default=0, metadata={"help": "Number of the validation task."})

    def __post_init__(self) -> None:
        check_fields(self, {"num_steps": Range(low=1), "task": Range(low=0)})


def main(argv: list[str] | None = None) -> str:
    """Returns the two sentences."""
    model_args, task_args, args, run = own_settings(argv, RunArguments, __doc__)
    if model_args.more_base_models:
        raise ConfigError("A trajectory is of one base model; leave out more_base_models.")
    torch.set_num_threads(1)
    device = make_accelerator().device
    network, output_dir = L3RSArtifact.from_pretrained(args.l3rs).network, Path(args.output_dir)
    num_steps = run.num_steps or network.config.num_training_steps
    if num_steps is None:
        raise ConfigError("The L3RS does not say for how many steps it was meta-trained; give --num_steps.")
    model, _, validation = build_tasks(model_args, task_args, args.seed)
    model.to(device)
    table = record_trajectory(model, network, draw_task(validation, args.seed, run.task, num_steps), device)
    behaviour, shown_on = describe_behaviour(table), last_part(model_args.base_model)
    if shown_on != last_part(network.config.base_model or ""):
        # an L3RS of many models does not do the same on each
        behaviour = f"On {shown_on}, {behaviour[0].lower()}{behaviour[1:]}"
    write_files(output_dir, {"trajectories.csv": to_csv(table)})
    write_results(Results(network.fingerprint(), (), behaviour), output_dir / "behaviour.json")
    plot_trajectories(table, output_dir / TRAJECTORIES_NAME, f"{Path(args.l3rs).name}: a run of {num_steps} steps")
    sys.stdout.write(f"{behaviour}\n\nTable and picture are in {output_dir}.\n")
    return behaviour


if __name__ == "__main__":
    run_script(main)
