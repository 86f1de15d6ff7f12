"""`hf-l3rs info`: describes a learned optimizer, and how well it fits a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hf_l3rs.cli.shell import Answer, add_json_option, table


if TYPE_CHECKING:
    from hf_l3rs.optimizer.config import L3RSConfig


def add_to(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser("info", help="describe a learned optimizer")
    parser.add_argument("source", metavar="FOLDER_OR_REPO_ID", help="folder, or Hub id such as user/name")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--model", help="folder or Hub id of an image classifier, to tell how well it is fitted")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    from hf_l3rs.hub.pretrained import L3RSArtifact

    artifact = L3RSArtifact.from_pretrained(arguments.source, revision=arguments.revision)
    network, config = artifact.network, artifact.config
    rows: dict[str, Any] = {
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
    return Answer(table(rows), rows)


def _fit(model: str, config: L3RSConfig) -> str:
    from hf_l3rs.optimizer.fit import measure_fit
    from hf_l3rs.optimizer.layers import describe_trainable_layers
    from hf_l3rs.tasks.model import load_image_classifier

    return measure_fit(describe_trainable_layers(load_image_classifier(model)), config).describe()
