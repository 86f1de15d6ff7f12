"""
Puts a meta-trained L3RS and what was measured with it into one folder that is exactly its Hub repository.

    python recipes/release.py outputs/resnet_tiny_fashion_short/l3rs model_cards/l3rs-resnet-tiny-fashion \\
        outputs/evaluate_resnet_tiny_fashion/results.json outputs/evaluate_resnet_tiny_digits/results.json \\
        outputs/trajectories_resnet_tiny_fashion/behaviour.json

The card is made from config and results, with the picture beside the first of them; what a person wrote into an
earlier card is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hf_l3rs import L3RSArtifact
from hf_l3rs.errors import ArtifactError, L3RSError
from hf_l3rs.files import write_files
from hf_l3rs.hub.artifact import PICTURE_NAME, RESULTS_NAME
from hf_l3rs.hub.results import OPTIMIZER_NAME, Results, read_results, write_results


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("l3rs", help="folder that recipes/meta_train.py wrote")
    parser.add_argument("folder", help="folder of the release, such as model_cards/NAME")
    parser.add_argument(
        "results",
        nargs="*",
        help="what recipes/meta_evaluate.py (results.json) and recipes/trajectories.py (behaviour.json) wrote",
    )
    args = parser.parse_args(argv)
    artifact, folder = L3RSArtifact.from_pretrained(args.l3rs), Path(args.folder)
    fingerprint, entries = artifact.network.fingerprint(), []
    behaviour = None
    for path in args.results:
        results = read_results(path)
        if results.fingerprint != fingerprint:
            raise ArtifactError(
                f"{path} was measured with other meta-weights ({results.fingerprint}) than those of {args.l3rs} "
                f"({fingerprint}); measure these with recipes/meta_evaluate.py."
            )
        entries += [entry for entry in results.entries if entry.optimizer == OPTIMIZER_NAME]
        behaviour = results.behaviour or behaviour
    if entries or behaviour:
        write_results(Results(fingerprint, tuple(entries), behaviour), folder / RESULTS_NAME)
    pictures = [file for path in args.results if (file := Path(path).with_name(PICTURE_NAME)).is_file()]
    if pictures:
        write_files(folder, {PICTURE_NAME: pictures[0].read_bytes()})
    artifact.save_pretrained(folder)


if __name__ == "__main__":
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
