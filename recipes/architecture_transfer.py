"""
Measures how an L3RS carries over to architectures that it never saw: untouched, and after a short warm start on each.

    python recipes/base_models/build_zoo.py --only unseen
    python recipes/architecture_transfer.py

For each model, meta_train.py goes on from the L3RS for so many inner steps, on images for meta-training, and
meta_evaluate.py measures what comes out, and the L3RS itself, on unseen tasks, beside Adam at 1e-3 and baselines whose
rates it searches on validation tasks. OUTPUT_DIR/summary.md has one table of everything, made of the rows that are in
OUTPUT_DIR/MODEL, and those are of OUTPUT_DIR/MODEL/VARIANT. What is there is not made again: after an interruption the
same command goes on. To store a model for the README of the recipes, copy its rows.csv and search/search.csv to
recipes/results/architecture_transfer/MODEL, and run `make readme`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.job import ROWS_NAME
from hf_l3rs.evaluation.rows import Row, read_rows, to_csv
from hf_l3rs.files import write_files
from hf_l3rs.hub.results import OPTIMIZER_NAME
from hf_l3rs.settings import OptionParser


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # recipes is not installed

from recipes.evidence.transfer import FIXED, UNTOUCHED, to_table


RECIPES = Path(__file__).resolve().parent
TUNED = ("Adam constant", "Adam cosine", "Schedule-free AdamW")
STEPS_PER_GENERATION = 40  # of configs/architecture_transfer.yaml: 2 tasks of 20 steps
SMOKE = {"horizons": [10], "num_tasks": 2, "num_search_tasks": 1, "evaluation_size": 50}


def run_recipe(name: str, config: str, num_processes: int, **options: object) -> None:
    """Runs a recipe with a configuration and options; ends with its status if it fails, as it has said why."""
    launcher = [sys.executable]
    if num_processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    # relative, as the command stands on the card
    command = [*launcher, str(RECIPES / name), os.path.relpath(RECIPES / "configs" / config)]
    for option, value in options.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        command += [f"--{option}", *map(str, values)]
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the recipe got it, too, and saves what it has
        process.wait()
        raise
    if status:
        sys.exit(status)


def warm_start(model: str, inner_steps: int, folder: Path, arguments: argparse.Namespace) -> Path:
    """Returns the L3RS after a warm start on a model, which goes on where it was interrupted."""
    target = folder / "meta_training"
    if not (target / "l3rs").exists():
        resume = {"resume_from_checkpoint": "last"} if any(target.glob("checkpoint-*")) else {}
        run_recipe(
            "meta_train.py",
            "architecture_transfer.yaml",
            arguments.num_processes,
            base_model=model,
            initial_l3rs=arguments.l3rs,
            num_generations=inner_steps // STEPS_PER_GENERATION,
            output_dir=target,
            **resume,
        )
    return target / "l3rs"


def measure(model: str, arguments: argparse.Namespace) -> list[Row]:
    """Measures all variants of the L3RS and the baselines on a model, writes the rows and returns them."""
    tuned = TUNED[:1] if arguments.smoke else arguments.baselines
    folder, rows = arguments.output_dir / Path(model).name, []
    for inner_steps in (0, *arguments.inner_steps):
        variant = f"{inner_steps} inner steps" if inner_steps else UNTOUCHED
        place = folder / variant.replace(" ", "_")
        run_recipe(
            "meta_evaluate.py",
            "evaluate_architecture_transfer.yaml",
            arguments.num_processes,
            base_model=model,
            setting=f"{Path(model).name}, an architecture that it never saw",
            l3rs=warm_start(model, inner_steps, place, arguments) if inner_steps else arguments.l3rs,
            # it wants one at least; those of the first variant are what counts
            baselines=[FIXED] if inner_steps else [FIXED, *tuned],
            output_dir=place,
            search_dir=folder / "search",
            **(SMOKE if arguments.smoke else {}),
        )
        measured = read_rows(place / ROWS_NAME)
        rows += [replace(row, optimizer=variant) for row in measured if row.optimizer == OPTIMIZER_NAME]
        rows += [row for row in measured if row.optimizer in (FIXED, *tuned) and not inner_steps]
    write_files(folder, {ROWS_NAME: to_csv(rows).encode()})
    return rows


def check(arguments: argparse.Namespace) -> None:
    """
    Finds what the recipes would only say after hours.

    Raises:
        ConfigError: If a model is absent, two have one name, or a number of inner steps makes no whole generations.
    """
    for model in arguments.models:
        if not Path(model).is_dir():
            raise ConfigError(f"There is no folder {model!r}; make it with recipes/base_models/build_zoo.py first.")
    names = [Path(model).name for model in arguments.models]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two models have one name, and would share a folder: {', '.join(names)}; rename one.")
    for inner_steps in arguments.inner_steps:
        if inner_steps < 1 or inner_steps % STEPS_PER_GENERATION:
            raise ConfigError(
                f"inner_steps must be multiples of {STEPS_PER_GENERATION}, which a generation of 2 tasks of 20 steps "
                f"takes; got {inner_steps}, round it."
            )


def parse_arguments(argv: Iterable[str] | None) -> argparse.Namespace:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    zoo = [f"outputs/zoo/{name}" for name in ("convnext", "swin", "dinov2", "mobilenet-v2", "resnet-wide")]
    parser.add_argument("--models", nargs="+", default=zoo, help="Folders of models that it never saw.")
    parser.add_argument("--l3rs", default="model_cards/l3rs-universal-start", help="Folder or Hub id of the L3RS.")
    parser.add_argument("--inner_steps", nargs="*", type=int, default=[200, 1000], help="Lengths of warm starts.")
    parser.add_argument("--baselines", nargs="+", default=list(TUNED), help="Whose learning rates are searched.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/architecture_transfer"), help="Where to.")
    parser.add_argument("--num_processes", type=int, default=1, help="CPU processes that share the work.")
    parser.add_argument("--smoke", action="store_true", help="Little of everything, to see that it runs.")
    arguments = parser.parse_args(argv)
    if arguments.smoke:  # in a place of its own, since the rows are of other settings
        arguments.inner_steps, arguments.output_dir = [STEPS_PER_GENERATION], arguments.output_dir / "smoke"
    return arguments


def main(argv: Iterable[str] | None = None) -> str:
    """Returns the table."""
    arguments = parse_arguments(argv)
    check(arguments)
    table = to_table({Path(model).name: measure(model, arguments) for model in arguments.models})
    text = (
        f"{table}\n\nLoss on unseen tasks, mean ± standard error, and on how many of them it is lower than the best "
        "baseline's.\n"
    )
    write_files(arguments.output_dir, {"summary.md": text.encode()})
    sys.stdout.write(f"\n{text}")
    return table


if __name__ == "__main__":
    run_script(main)
