"""
The command `hf-l3rs`: looks at learned optimizers and exchanges them with the Hub.

```bash
hf-l3rs info user/name --model org/model
hf-l3rs push model_cards/l3rs-resnet-tiny-fashion user/name --private
hf-l3rs pull user/name outputs/name --revision v1
```
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from hf_l3rs.errors import L3RSError
from hf_l3rs.markdown import one_line


if TYPE_CHECKING:
    from hf_l3rs.learned.config import L3RSConfig


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line; each subcommand's function is in `run`."""
    parser = argparse.ArgumentParser(prog="hf-l3rs", description="Learned optimizers on disk and on the Hub.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="describe a learned optimizer")
    info.add_argument("source", metavar="FOLDER_OR_REPO_ID", help="folder, or Hub id such as user/name")
    info.add_argument("--revision", help="branch, tag or commit on the Hub")
    info.add_argument("--model", help="folder or Hub id of an image classifier, to tell how well it is fitted")
    info.set_defaults(run=_info)

    push = commands.add_parser("push", help="upload a folder to the Hub in one commit")
    push.add_argument("folder", metavar="FOLDER", help="what L3RS.save_pretrained wrote")
    push.add_argument("repo_id", metavar="REPO_ID", help="Hub id such as user/name; made if absent")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--revision", help="branch to push to; made if absent")
    push.add_argument("--message", default="Upload L3RS", help="commit message (default: %(default)s)")
    push.set_defaults(run=_push)

    pull = commands.add_parser("pull", help="copy a learned optimizer from the Hub into a folder")
    pull.add_argument("repo_id", metavar="REPO_ID", help="Hub id such as user/name")
    pull.add_argument("folder", metavar="FOLDER", help="made if absent")
    pull.add_argument("--revision", help="branch, tag or commit on the Hub")
    pull.add_argument("--overwrite", action="store_true", help="replace files in FOLDER that differ")
    pull.set_defaults(run=_pull)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command line.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments; those of the process by default.

    Returns:
        `int`: The exit status: 0, or 1 after one line about what went wrong on standard error.
    """
    arguments = make_parser().parse_args(argv)
    try:
        _write(arguments.run(arguments), sys.stdout)
    except (L3RSError, OSError) as error:  # the latter from a folder that may not be read
        _write(one_line(f"hf-l3rs: {error}"), sys.stderr)
        return 1
    return 0


def _info(arguments: argparse.Namespace) -> str:
    from hf_l3rs.hub.pretrained import L3RSArtifact

    artifact = L3RSArtifact.from_pretrained(arguments.source, revision=arguments.revision)
    network, config = artifact.network, artifact.config
    rows = {
        "base model": config.base_model,
        "base model's commit": config.base_model_revision,
        "model type": config.model_type,
        "horizon (steps)": config.num_training_steps,
        "layers": len(config.layers),
        "directions": ", ".join(config.directions),
        "features": ", ".join(config.features),
        "meta-parameters": f"{network.num_meta_parameters:,}",
        "max_grad_norm": config.max_grad_norm,
        "hf_l3rs version": config.library_version,
        "fingerprint": network.fingerprint(),
        "commit": artifact.commit_hash,
        **{f"meta-training: {key}": value for key, value in config.meta_training.items()},
    }
    if arguments.model is not None:
        rows = {f"fit to {arguments.model}": _fit(arguments.model, config), **rows}
    return _table(rows)


def _fit(model: str, config: L3RSConfig) -> str:
    from hf_l3rs.learned.fit import measure_fit
    from hf_l3rs.learned.layers import describe_trainable_layers
    from hf_l3rs.tasks.base_model import load_image_classifier

    return measure_fit(describe_trainable_layers(load_image_classifier(model)), config).describe()


def _push(arguments: argparse.Namespace) -> str:
    from hf_l3rs.hub.hub import push

    url = push(
        arguments.folder,
        arguments.repo_id,
        private=arguments.private or None,
        revision=arguments.revision,
        commit_message=arguments.message,
    )
    return one_line(url)


def _pull(arguments: argparse.Namespace) -> str:
    from hf_l3rs.hub.hub import pull

    commit_hash = pull(arguments.repo_id, arguments.folder, revision=arguments.revision, overwrite=arguments.overwrite)
    return one_line(f"{arguments.folder}: {arguments.repo_id} at commit {commit_hash}")


def _table(rows: dict[str, Any]) -> str:
    """One row a line. What an artefact says may be any text: it must not reach the terminal as commands to it."""
    width = min(max(map(len, rows)), 60)
    return "\n".join(f"{one_line(name):<{width}}  {one_line(_text(value))}" for name, value in rows.items())


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _write(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


if __name__ == "__main__":
    sys.exit(main())
