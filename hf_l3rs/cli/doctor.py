"""`hf-l3rs doctor`: what is installed, what it runs on, and what an L3RS would do with a model."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_l3rs.cli.shell import Answer, add_json_option, table
from hf_l3rs.errors import ConfigError
from hf_l3rs.markdown import one_line


if TYPE_CHECKING:
    from hf_l3rs.optimizer.config import L3RSConfig
    from hf_l3rs.optimizer.fit import Fit

NEEDED = ("hf_l3rs", "torch", "transformers", "accelerate", "datasets", "huggingface_hub", "safetensors")
# What some commands need beside that, and the extra that brings it.
OPTIONAL = {"matplotlib": "plots", "schedulefree": "rivals", "timm": "timm"}


def add_to(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "doctor",
        help="versions and devices; with a learned optimizer and --model, how each layer is matched",
        description="Tells versions and devices; with a learned optimizer and a model, how each layer of the model is "
        "matched, and what to expect of it.",
    )
    parser.add_argument("source", nargs="?", metavar="FOLDER_OR_REPO_ID", help="a learned optimizer")
    parser.add_argument("--revision", help="its branch, tag or commit on the Hub")
    parser.add_argument("--model", help="folder or Hub id of an image classifier")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Answer:
    if (arguments.source is None) != (arguments.model is None):
        raise ConfigError(
            "doctor takes a learned optimizer and --model together, got one of them; give both, or neither."
        )
    data: dict[str, Any] = {"versions": versions(), "devices": devices()}
    text = table({**data["versions"], **data["devices"]})
    if arguments.source is None:
        return Answer(text, data)
    from hf_l3rs.hub.pretrained import L3RSArtifact
    from hf_l3rs.optimizer.fit import measure_fit
    from hf_l3rs.optimizer.layers import describe_trainable_layers
    from hf_l3rs.tasks.model import load_image_classifier

    config = L3RSArtifact.from_pretrained(arguments.source, revision=arguments.revision).config
    fit = measure_fit(describe_trainable_layers(load_image_classifier(arguments.model)), config)
    expected = expectation(fit, config)
    layers = [
        {"layer": each.layer.name, "role": each.layer.role, "shape": list(each.layer.shape), "matched": each.kind}
        for each in fit.layers
    ]
    data |= {"fit": fit.describe(), "shares": fit.shares, "expect": expected, "layers": layers}
    text += f"\n\n{_columns(layers)}\n\n{one_line(arguments.source)} {fit.describe()}.\n{expected}"
    return Answer(text, data)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that matter."""
    from hf_l3rs.evaluation.manifest import installed_version

    found = {"python": platform.python_version()}
    found |= {name: installed_version(name) or "not installed" for name in NEEDED}
    for name, extra in OPTIONAL.items():
        found[name] = installed_version(name) or f'not installed: pip install "hf_l3rs[{extra}]"'
    return found


def devices() -> dict[str, Any]:
    """Returns what training would run on."""
    import torch

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "accelerator": "none, training runs on the CPU" if kind is None else ", ".join(names) or kind.type,
        "CPU cores": os.cpu_count(),
        "threads of torch": torch.get_num_threads(),
    }


def expectation(fit: Fit, config: L3RSConfig) -> str:
    """
    Says what to expect of an L3RS on a model that it fits so well.

    Args:
        fit ([`~hf_l3rs.Fit`]): Of the model's layers.
        config ([`~hf_l3rs.L3RSConfig`]): Of the L3RS.
    """
    from hf_l3rs.optimizer.fit import MINIMUM_FIT

    steps = f"runs of up to some {config.num_training_steps} steps" if config.num_training_steps else "short runs"
    if fit.share < MINIMUM_FIT:
        return (
            f"Expect a refusal: less than {MINIMUM_FIT:.0%} of the parameters are in layers that it knows. Make one "
            "for this model with `hf-l3rs init`, or try one that knows layers by role, such as l3rs-universal-start."
        )
    if set(fit.counts) <= {"name", "rename", "structure"} and fit.is_full:
        return f"Expect what its card tells, in {steps}, on data like those of its meta-training."
    if fit.is_full:
        return (
            f"It knows these layers by role, not this model: expect some of the gain, in {steps}. `hf-l3rs compare` "
            "measures how much, and meta-training from it as initial_l3rs brings more."
        )
    return (
        f"{len(fit.misfits)} layers take a mean of what it knows: expect some of the gain, in {steps}. `hf-l3rs "
        "compare` measures how much, and meta-training from it as initial_l3rs brings more."
    )


def _columns(layers: Sequence[dict[str, Any]]) -> str:
    rows = [(each["layer"], each["role"], "x".join(map(str, each["shape"])), each["matched"]) for each in layers]
    rows = [("layer", "role", "shape", "matched by"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows)
