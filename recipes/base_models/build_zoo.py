"""
Trains small base models of other widths, depths and architectures: what a learned optimizer for any model is made of.

    python recipes/base_models/build_zoo.py
    python recipes/base_models/build_zoo.py --only resnet-24-48-96 vit-32x2

They go to outputs/zoo/NAME, each in about a minute on one core; what is there is not made again.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import subprocess
import sys
from pathlib import Path


logger = logging.getLogger("build_zoo")

PRETRAIN = Path(__file__).resolve().parents[1] / "pretrain.py"

# Meta-training is on these and on the embedded models, ResNet (16, 32, 64) x 1 and ViT 64 x 4.
TRAINED = {
    "resnet-24-48-96": "--architecture resnet --hidden_sizes 24 48 96 --max_steps 500",
    "resnet-48-96-144": "--architecture resnet --hidden_sizes 48 96 144 --max_steps 300",
    "resnet-32-64-96x2": "--architecture resnet --hidden_sizes 32 64 96 --depths 2 2 2 --max_steps 300",
    "vit-32x2": "--architecture vit --hidden_size 32 --num_hidden_layers 2 --max_steps 1600",
    "vit-48x6": "--architecture vit --hidden_size 48 --num_hidden_layers 6 --max_steps 800",
    "vit-96x3": "--architecture vit --hidden_size 96 --num_hidden_layers 3 --max_steps 600",
}
# These are for testing alone: no L3RS is meta-trained on them.
UNSEEN = {
    "resnet-16-32-64-128x2": "--architecture resnet --hidden_sizes 16 32 64 128 --depths 2 2 2 2 --max_steps 500",
    "convnext-16-32-64": "--architecture convnext --max_steps 400",
    "dinov2-48x3": "--architecture dinov2 --hidden_size 48 --num_hidden_layers 3 --max_steps 800",
}
VARIANTS = TRAINED | UNSEEN
COMMON = "--warmup_steps 50 --disable_tqdm true"
LAST_FILE = "README.md"  # pretrain.py writes it when the model is there


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="outputs/zoo", help="A folder for the models' folders.")
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help="By default, all."
    )
    parser.add_argument("--smoke", action="store_true", help="A few steps each, to see that everything runs.")
    args = parser.parse_args(argv)
    for name in args.only:
        folder = Path(args.output_dir) / name
        if (folder / LAST_FILE).is_file():
            logger.info("%s is there.", folder)
            continue
        logger.info("%s:", folder)
        options = shlex.split(f"{VARIANTS[name]} {COMMON}") + (["--smoke"] if args.smoke else [])
        command = [sys.executable, str(PRETRAIN), *options, "--output_dir", str(folder)]
        if status := subprocess.run(command).returncode:  # it has said why
            sys.exit(status)


if __name__ == "__main__":
    main()
