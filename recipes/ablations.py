"""
Says what each part of an L3RS brings: meta-trains variations of one that differ in a setting, with the same tasks,
budget and seed, and scores them on the same validation tasks.

    python -m recipes.ablations recipes/configs/ablations.yaml
    python -m recipes.ablations recipes/configs/ablations.yaml --only base "Adam alone"

The YAML file has settings of recipes/meta_train.py and, under `variations`, by name, what differs; the first is what
the others are compared with. OUTPUT_DIR/NAME has the L3RS and the rows of each, OUTPUT_DIR itself rows.csv and
summary.md of all that are there. What is there is not made again: after an interruption the same command goes on.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from accelerate import Accelerator

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.main import run_script
from hf_l3rs.cli.meta_train import ARGUMENTS, train
from hf_l3rs.distributed import make_accelerator, on_main_process
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import l3rs_contender
from hf_l3rs.evaluation.benchmark import run_all
from hf_l3rs.evaluation.job import ROWS_NAME
from hf_l3rs.evaluation.report import losses_by_task
from hf_l3rs.evaluation.store import Row, RowStore, Run, final_rows, measurement_settings, read_rows, to_csv
from hf_l3rs.files import write_files
from hf_l3rs.markdown import markdown_table
from hf_l3rs.settings import parse_settings, read_yaml
from hf_l3rs.tasks.distribution import build_tasks
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments
from hf_l3rs.validation import Range, check_fields
from recipes.evidence.experiment import split_path


@dataclass
class AblationArguments:
    """What variations are scored on, and which of them to make."""

    only: list[str] = field(default_factory=list, metadata={"help": "Names of variations; all by default."})
    horizons: list[int] = field(default_factory=lambda: [10, 20, 50], metadata={"help": "Lengths of scored runs."})
    num_scoring_tasks: int = field(default=32, metadata={"help": "Validation tasks of each length."})
    scoring_size: int = field(default=1000, metadata={"help": "Images that a scored run is evaluated on."})
    scoring_seed: int = field(default=7, metadata={"help": "Of these tasks."})

    def __post_init__(self) -> None:
        positive = Range(low=1)
        rules = dict.fromkeys(("horizons", "num_scoring_tasks", "scoring_size"), positive)
        check_fields(self, {**rules, "scoring_seed": Range(low=0)})


TYPES = (*ARGUMENTS, AblationArguments)


class Ablation(NamedTuple):
    """Settings of each variation by its name, of the types of `ARGUMENTS`, and what all are scored on."""

    variations: dict[str, tuple[Any, ...]]
    args: AblationArguments
    output_dir: Path

    def folder(self, name: str) -> Path:
        return self.output_dir / name.replace(" ", "_")


def read_ablation(argv: Sequence[str] | None) -> Ablation:
    """
    Reads a YAML file, the first argument, and options that override it for every variation.

    Raises:
        ConfigError: If there is no file, it has no variations, or a setting of one of them is not allowed.
    """
    path, options = split_path(argv, TYPES, __doc__)
    common = read_yaml(path)
    changes = common.pop("variations", None)
    if not isinstance(changes, dict) or not changes or not all(_is_variation(*item) for item in changes.items()):
        raise ConfigError(
            f"The settings file {path} must have, under variations, names of letters, digits and spaces, each with a "
            "mapping of the settings that differ; correct it, or name another."
        )
    *settings, args = parse_settings(TYPES, common, options)
    unknown = [name for name in args.only if name not in changes]
    if unknown:
        raise ConfigError(f"Unknown variations {', '.join(unknown)}; known are {', '.join(changes)}.")
    ablation = Ablation({}, args, Path(settings[-1].output_dir))
    for name, different in changes.items():
        *own, scored = parse_settings(TYPES, {**common, **different}, options)
        if scored != args or own[-1].output_dir != settings[-1].output_dir:
            raise ConfigError(
                f"The variation {name!r} would be scored otherwise, or elsewhere, than the others; leave out "
                "output_dir and what says how variations are scored."
            )
        folder = ablation.folder(name)
        # a run that is there goes on, which trains nothing more if it is over
        resume = "last" if any(folder.glob("checkpoint-*")) else None
        own[-1] = replace(own[-1], output_dir=str(folder), resume_from_checkpoint=resume)
        ablation.variations[name] = tuple(own)
    return ablation


def _is_variation(name: Any, different: Any) -> bool:
    return isinstance(name, str) and bool(re.fullmatch(r"\w[\w ]*", name)) and isinstance(different, dict)


def score(ablation: Ablation, name: str, accelerator: Accelerator) -> None:
    """Measures a variation that is made, on the same validation tasks as all."""
    args, by_type = ablation.args, {type(each): each for each in next(iter(ablation.variations.values()))}
    model_args, tasks = by_type[ModelArguments], replace(by_type[TaskArguments], evaluation_size=args.scoring_size)
    model, _, validation = build_tasks(model_args, tasks, args.scoring_seed)
    model.to(accelerator.device)
    settings = measurement_settings(model, validation, model_args, tasks, args.scoring_seed)
    folder = ablation.folder(name)
    contender = l3rs_contender(L3RSArtifact.from_pretrained(str(folder / "l3rs")).network, name)
    runs = [Run(contender, task, length) for length in args.horizons for task in range(args.num_scoring_tasks)]
    run_all(accelerator, model, validation, args.scoring_seed, runs, RowStore(folder / ROWS_NAME, settings), name)


def variations_table(rows: Sequence[Row]) -> str:
    """Returns a line for each variation: its loss, and in brackets how far that is above the first's."""
    finals = final_rows(rows)
    by_length = {int(steps): losses_by_task(own) for steps, own in finals.groupby("num_training_steps")}
    names = list(finals.optimizer.unique())
    lines = [(name, *(_cell(losses, name, names[0]) for losses in by_length.values())) for name in names]
    headers = ("variation", *(f"{steps} steps" for steps in by_length))
    return markdown_table(headers, lines, ("left", *["right"] * len(by_length)))


def _cell(losses: pd.DataFrame, name: str, base: str) -> str:
    own = losses[name]
    if diverged := (own == math.inf).sum():
        return f"diverged on {diverged}"
    if name == base:
        return f"{own.mean():.3f}"
    above = own - losses[base]
    error = "" if len(above) == 1 else f" ± {above.sem():.3f}"
    return f"{own.mean():.3f} ({above.mean():+.3f}{error})"


def report(ablation: Ablation) -> str:
    """Writes what is known of the variations that are there, and returns the table."""
    files = [ablation.folder(name) / ROWS_NAME for name in ablation.variations]
    rows = [row for file in files if file.exists() for row in read_rows(file)]
    table = variations_table(rows)
    write_files(ablation.output_dir, {ROWS_NAME: to_csv(rows).encode(), "summary.md": f"{table}\n".encode()})
    return table


def main(argv: Sequence[str] | None = None) -> str | None:
    """Returns the table, or `None` if training was interrupted."""
    ablation = read_ablation(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    accelerator = make_accelerator()
    for name in ablation.args.only or ablation.variations:
        if train(*ablation.variations[name]) is None:
            return None
        score(ablation, name, accelerator)
    table = on_main_process(accelerator, lambda: report(ablation))
    if accelerator.is_main_process:
        sys.stdout.write(f"\n{table}\n\nLoss on validation tasks, and mean ± standard error above the first's.\n")
    return table


if __name__ == "__main__":
    run_script(main)
