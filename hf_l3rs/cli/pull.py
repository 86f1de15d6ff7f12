"""`hf-l3rs pull`: copies a learned optimizer from the Hub into a folder."""

from __future__ import annotations

import argparse
from typing import Any

from hf_l3rs.cli.shell import Answer, add_json_option
from hf_l3rs.markdown import one_line


def add_to(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser("pull", help="copy a learned optimizer from the Hub into a folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="Hub id such as user/name")
    parser.add_argument("folder", metavar="FOLDER", help="made if absent")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--overwrite", action="store_true", help="replace files in FOLDER that differ")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    from hf_l3rs.hub.publish import pull

    commit_hash = pull(arguments.repo_id, arguments.folder, revision=arguments.revision, overwrite=arguments.overwrite)
    text = one_line(f"{arguments.folder}: {arguments.repo_id} at commit {commit_hash}")
    return Answer(text, {"folder": arguments.folder, "repo_id": arguments.repo_id, "commit": commit_hash})
