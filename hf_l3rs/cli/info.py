"""`hf-l3rs info`: which learned optimizers there are, what one is, and how well it knows a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_l3rs.cli.main import columns
from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import RELEASED, RESULTS_NAME, L3RSArtifact, l3rs_of_run, released_names
from hf_l3rs.hub.card import base_of, describe_gain, trained_part
from hf_l3rs.hub.results import OPTIMIZER_NAME, Result, read_results_of
from hf_l3rs.markdown import duration, listed, mean_with_stderr, one_line
from hf_l3rs.meta.checkpoint import plain_json
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.fit import MINIMUM_FIT, measure_fit
from hf_l3rs.optimizer.layers import describe_trainable_layers
from hf_l3rs.settings import OptionParser
from hf_l3rs.tasks.model import load_image_classifier


DESCRIPTION = """
Without SOURCE, lists the learned optimizers that come with the package. With it, describes one; with --model, too,
says which layers of a model it knows.
"""
_HEADERS = ("name", "model", "trainable", "steps", "beside the best tuned rival")
_RESULTS = ("setting", "steps", "L3RS", "best rival", "which", "wins", "stands")


def run(argv: Sequence[str]) -> str:
    parser = OptionParser(prog="hf-l3rs info", description=DESCRIPTION)
    parser.add_argument("source", nargs="?", metavar="SOURCE",
                        help="name of a released one, folder, or Hub id such as user/name")  # fmt: skip
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--model", help="folder or Hub id of an image classifier")
    parser.add_argument("--json", action="store_true", help="answer in JSON, for a script")
    arguments = parser.parse_args(argv)
    is_one = arguments.source is not None
    if not is_one and (arguments.model or arguments.revision):
        raise ConfigError("--model and --revision are of one learned optimizer; name it, or leave them out.")
    text, data = _one(arguments.source, arguments.revision, arguments.model) if is_one else _released()
    return json.dumps(plain_json(data), indent=2) if arguments.json else text


def _released() -> tuple[str, list[dict[str, Any]]]:
    """The list of all, as text and as data."""
    lines = []
    for name in released_names():
        artifact = L3RSArtifact.from_pretrained(name)
        base = base_of(artifact.config).rpartition("same layers as ")[2].rstrip(")")  # the Hub's name if it has one
        gain = (describe_gain(_results(artifact, name)) or "not measured yet").removeprefix("in domain: ")
        trainable = artifact.config.meta_training.get("trainable", "all")
        lines.append((name, base, trainable, _describe(artifact)["steps"], gain))
    text = f"{columns([_HEADERS, *lines])}\n\n`hf-l3rs info NAME` says more of one."
    return text, [dict(zip(_HEADERS, line)) for line in lines]


def _one(name: str, revision: str | None, model: str | None) -> tuple[str, dict[str, Any]]:
    """What there is to say of one, as text and as data."""
    source = str(l3rs_of_run(name) or name)
    artifact = L3RSArtifact.from_pretrained(source, revision=revision)
    rows, entries = _describe(artifact), _results(artifact, source)
    text = columns(rows.items())
    if entries:
        text += f"\n\n{columns([_RESULTS, *map(_result, entries)])}"
    data: dict[str, Any] = {**rows, "config": artifact.config.to_dict(), "results": [vars(each) for each in entries]}
    if model is not None:
        data["layers"], sentence = _fit(model, name, artifact.config, bool(entries))
        text += f"\n\n{sentence}"
    return text, data


def _describe(artifact: L3RSArtifact) -> dict[str, Any]:
    """What a person wants to know first, a row each."""
    network, config, made = artifact.network, artifact.config, artifact.config.meta_training
    shortest, longest = made.get("min_steps"), config.num_training_steps
    data, seconds = made.get("datasets"), made.get("seconds")
    rows = {
        "model": base_of(config),
        "trained": f"{trained_part(made) or 'all layers'}".removesuffix(" of"),
        "steps": f"{shortest} to {longest}" if isinstance(shortest, int) and shortest != longest else longest,
        "made with": ", ".join(map(str, data)) if isinstance(data, list) else data,
        "making took": duration(seconds) if isinstance(seconds, (int, float)) else None,
        "directions": ", ".join(config.directions),
        "layers": len(config.layers),
        "meta-weights": f"{network.num_meta_parameters:,}",
        "fingerprint": network.fingerprint(),
    }
    return rows if artifact.commit_hash is None else {**rows, "commit": artifact.commit_hash}


def _results(artifact: L3RSArtifact, source: str) -> list[Result]:
    """What is stored beside it: of a folder or a released one."""
    folder = RELEASED / source if source in released_names() else Path(source)
    results = read_results_of(artifact.network.fingerprint(), folder / RESULTS_NAME)
    entries = results.entries if results is not None and artifact.commit_hash is None else ()
    return [entry for entry in entries if entry.optimizer == OPTIMIZER_NAME]


def _result(entry: Result) -> tuple[Any, ...]:
    loss = mean_with_stderr(entry.loss, entry.loss_stderr)
    rival = wins = None
    if entry.baseline_loss is not None:
        rival, wins = f"{entry.baseline_loss:.3f}", f"{entry.wins} of {entry.num_tasks}"
    return (entry.setting, entry.num_training_steps, loss, rival, entry.baseline, wins, entry.verdict)


def _fit(model: str, name: str, config: L3RSConfig, is_measured: bool) -> tuple[dict[str, int], str]:
    """How many layers of a model are known in which way, and what that says of training it."""
    fit, model_name = measure_fit(describe_trainable_layers(load_image_classifier(model)), config), one_line(model)
    known = [f"{count} by {kind}" for kind, count in fit.counts.items() if kind != "unknown"]
    text = f"Of the {len(fit.layers)} layers of {model_name} it knows {listed(known) if known else 'none'}"
    text += f"; {len(fit.misfits)} are unknown to it." if fit.misfits else "."
    if fit.share < MINIMUM_FIT:
        text += " That is too few: training is refused. l3rs-vision knows layers by role; take that."
    elif config.base_model == model:
        measured = "what was measured is above" if is_measured else "nothing that was measured is stored beside it"
        text += f" It was made for this model: {measured}."
    else:
        text += (
            f" It was made for {one_line(base_of(config))}, and was not measured on {model_name}; `hf-l3rs compare "
            f"{one_line(name)} --model {model_name} --data IMAGES` does that."
        )
    return fit.counts, text
