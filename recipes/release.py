"""
Puts a meta-trained L3RS and what was measured with it into one folder that is exactly its Hub repository.

    python recipes/release.py outputs/resnet_tiny_fashion_short/l3rs model_cards/l3rs-resnet-tiny-fashion \\
        outputs/evaluate_resnet_tiny_fashion/results.json outputs/evaluate_resnet_tiny_digits/results.json \\
        outputs/trajectories_resnet_tiny_fashion/behaviour.json

The card is made from config and results, with the picture beside the first of them; what a person wrote into an
earlier card is kept. `hf-l3rs push` does the same with the output folder of a run, on its way to the Hub.
"""

from __future__ import annotations

import argparse

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.shell import run_script
from hf_l3rs.hub.release import write_release
from hf_l3rs.settings import OptionParser


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("l3rs", help="folder that recipes/meta_train.py wrote")
    parser.add_argument("folder", help="folder of the release, such as model_cards/NAME")
    parser.add_argument(
        "results",
        nargs="*",
        help="what recipes/meta_evaluate.py (results.json) and recipes/trajectories.py (behaviour.json) wrote",
    )
    args = parser.parse_args(argv)
    write_release(L3RSArtifact.from_pretrained(args.l3rs), args.folder, args.results)


if __name__ == "__main__":
    run_script(main)
