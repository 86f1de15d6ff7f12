"""
Releases an L3RS with the package, and writes the cards of those that are released.

    python -m recipes.release
    python -m recipes.release l3rs-resnet-tiny-fashion --l3rs outputs/resnet_tiny_fashion/second/l3rs \\
        --results outputs/results/l3rs-resnet-tiny-fashion/in_domain/results.json

hf_l3rs/released/NAME has what is loaded, and what was measured; model_cards/NAME has the card, which is made from
these, and its picture. Without an argument the cards of all are made anew. What a person wrote into a card is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.files import write_files
from hf_l3rs.hub.artifact import (
    README,
    RELEASED,
    RESULTS_NAME,
    load_network,
    picture_beside,
    picture_in,
    released_names,
    save_network,
)
from hf_l3rs.hub.card import generate_model_card, read_card
from hf_l3rs.hub.results import merge_results, read_results_of, write_results
from hf_l3rs.settings import OptionParser


CARDS = Path(__file__).resolve().parents[1] / "model_cards"
ALL_RESULTS = "../../recipes/results/README.md"  # from a card


def write_card(folder: Path, card_folder: Path) -> None:
    """Writes the card of the L3RS in `folder`; both folders have its name."""
    network, file = load_network(folder), folder / RESULTS_NAME
    card = generate_model_card(
        network.config,
        read_results_of(network.fingerprint(), file, strict=True) if file.exists() else None,
        repo_id=folder.name,
        existing=read_card(card_folder / README),
        picture=picture_in(card_folder),
        license="apache-2.0",
        all_results=ALL_RESULTS,
    )
    write_files(card_folder, {README: str(card).encode()})


def add_release(l3rs: str, folder: Path, card_folder: Path, files: list[Path]) -> None:
    """Copies an L3RS, its results and their picture."""
    network = L3RSArtifact.from_pretrained(l3rs).network
    fingerprint = network.fingerprint()
    results = merge_results(fingerprint, [read_results_of(fingerprint, file, strict=True) for file in files])
    save_network(network, folder)
    if results is not None:
        write_results(results, folder / RESULTS_NAME)
    write_files(card_folder, picture_beside(files))


def main(argv: list[str] | None = None, released: Path = RELEASED, cards: Path = CARDS) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of the released L3RS; all by default")
    parser.add_argument("--l3rs", help="folder of an L3RS that is to be released under this name")
    parser.add_argument("--results", nargs="*", default=[], type=Path, help="what was measured with it")
    args = parser.parse_args(argv)
    if args.name is None and (args.l3rs or args.results):
        raise ConfigError("--l3rs and --results need the name of the release; give it first.")
    if args.l3rs:
        add_release(args.l3rs, released / args.name, cards / args.name, args.results)
    for name in [args.name] if args.name else released_names():
        write_card(released / name, cards / name)


if __name__ == "__main__":
    run_script(main)
