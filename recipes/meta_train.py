"""
Makes an L3RS from a settings file of recipes/configs: all stages of its meta-training, one after the other.

    python -m recipes.meta_train recipes/configs/resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 -m recipes.meta_train recipes/configs/resnet_tiny_fashion.yaml    # two CPU processes
    accelerate launch --module recipes.meta_train recipes/configs/template.yaml

Options override the settings of the file. After an interruption the same command goes on. The finished artefact of a
stage is in its OUTPUT_DIR/l3rs. A file without stages is for `hf-l3rs meta-train`, too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hf_l3rs.cli.main import run_script
from hf_l3rs.cli.meta_train import ARGUMENTS, train
from hf_l3rs.errors import ConfigError
from hf_l3rs.settings import parse_settings
from recipes.evidence.experiment import read_experiment, split_path


@dataclass
class StageArguments:
    """Which stages of a file."""

    stages: list[int] = field(default_factory=list, metadata={"help": "Numbers of stages, from 1; all by default."})


TYPES = (*ARGUMENTS, StageArguments)


def main(argv: Sequence[str] | None = None) -> Path | None:
    """Returns the folder of the finished artefact, or `None` if training was interrupted."""
    path, options = split_path(argv, TYPES, __doc__)
    parsed = [parse_settings(TYPES, values, options) for values in read_experiment(path).stages]
    if not parsed:
        raise ConfigError(f"{path} has no meta_training; name a settings file that has.")
    chosen = parsed[0][-1].stages or range(1, len(parsed) + 1)
    if not set(chosen) <= set(range(1, len(parsed) + 1)):
        raise ConfigError(f"{path} has {len(parsed)} stages; got the numbers {', '.join(map(str, chosen))}.")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    artifact = None
    for number in chosen:
        *settings, args, _ = parsed[number - 1]
        if args.resume_from_checkpoint is None and any(Path(args.output_dir).glob("checkpoint-*")):
            args = replace(args, resume_from_checkpoint="last")  # which trains nothing more if the stage is over
        artifact = train(*settings, args)
        if artifact is None:
            return None
    return artifact


if __name__ == "__main__":
    run_script(main)
