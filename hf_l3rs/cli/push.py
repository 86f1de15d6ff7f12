"""`hf-l3rs push`: from an L3RS, or from the folder of the run that made or measured it, to its Hub repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hf_l3rs.hub.artifact import gather_release, push
from hf_l3rs.markdown import one_line
from hf_l3rs.settings import OptionParser


DESCRIPTION = """
Uploads a learned optimizer to the Hub in one commit: config, weights, measured results, card. FOLDER is the L3RS, or
the output folder of its meta-training or evaluation, with all results that are in it or, one level down, in folders
beside the L3RS; they are put beside the L3RS first.
"""


def run(argv: Sequence[str]) -> str:
    parser = OptionParser(prog="hf-l3rs push", description=DESCRIPTION)
    parser.add_argument("folder", metavar="FOLDER", help="an L3RS, or a folder that meta-train or evaluate wrote")
    parser.add_argument("repo_id", metavar="REPO_ID", help="Hub id such as user/name; made if absent")
    parser.add_argument("--results", nargs="+", default=[], metavar="PATH",
                        help="further results: files, or folders of evaluations")  # fmt: skip
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to push to; made if absent")
    parser.add_argument("--license", help="licence in the card, such as apache-2.0; none by default")
    parser.add_argument("--message", default="Upload L3RS", help="commit message (default: %(default)s)")
    arguments = parser.parse_args(argv)
    url = push(
        gather_release(Path(arguments.folder), arguments.results),
        arguments.repo_id,
        private=arguments.private or None,
        revision=arguments.revision,
        commit_message=arguments.message,
        license=arguments.license,
    )
    return one_line(url)
