"""
Meta-trains an L3RS for a pretrained image-classification model; `hf-l3rs meta-train` does the same.

    accelerate launch recipes/meta_train.py recipes/configs/resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 recipes/meta_train.py recipes/configs/resnet_tiny_fashion.yaml    # two CPU processes

Settings come from the YAML file; options of the same names override them. The finished artefact is in
OUTPUT_DIR/l3rs, ready for `L3RS.from_pretrained` and `hf-l3rs push`.
"""

from __future__ import annotations

from pathlib import Path

from hf_l3rs.cli.meta_train import meta_train
from hf_l3rs.cli.shell import run_script


def main(argv: list[str] | None = None) -> Path | None:
    """Returns the folder of the finished artefact, or `None` if training was interrupted."""
    return meta_train(argv, description=__doc__)


if __name__ == "__main__":
    run_script(main)
