"""What rows were measured with: settings that are written beside them, compared before rows are used again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import CheckpointError
from hf_l3rs.files import write_files
from hf_l3rs.tasks.distribution import TaskDistribution
from hf_l3rs.tasks.model import ALL
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


MANIFEST_NAME = "manifest.json"
PACKAGES = ("hf_l3rs", "torch", "transformers")

# Of each pool, so many images enter the fingerprint, beside all labels.
NUM_PROBES = 16

# Settings of data sets that change no row: what cards call them, and whether images are kept in memory.
_WITHOUT_EFFECT = ("hub_id", "max_memory_gb")


# Settings that are known only with model and images at hand.
FOUND = ("base_model_revision", "images_and_weights", "device")


def measurement_settings(
    model: nn.Module,
    tasks: TaskDistribution,
    model_args: ModelArguments,
    task_args: TaskArguments,
    seed: int,
    evaluate_every: int | None = None,
    recalibrate: bool = False,
) -> dict[str, Any]:
    """
    Returns what a row depends on beside its own columns and its optimizer, as plain JSON values.

    Args:
        model (`nn.Module`): On the device that runs are on.
        tasks ([`~hf_l3rs.tasks.distribution.TaskDistribution`]): Where tasks are drawn from.
        model_args ([`~hf_l3rs.tasks.task_arguments.ModelArguments`]): What `model` was built from.
        task_args ([`~hf_l3rs.tasks.task_arguments.TaskArguments`]): What `tasks` was built from.
        seed (`int`): Of the tasks.
        evaluate_every (`int`, *optional*): Steps between evaluations; at the end of runs only by default.
        recalibrate (`bool`, *optional*, defaults to `False`): As of [`EvaluationArguments`].
    """
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    return {
        **declared_settings(model_args, task_args, seed, evaluate_every, recalibrate),
        "base_model_revision": commit or model_args.base_model_revision,
        "images_and_weights": fingerprint(tasks, seed),
        "device": next(model.parameters()).device.type,  # each rounds in its own way
    }


def declared_settings(
    model_args: ModelArguments,
    task_args: TaskArguments,
    seed: int,
    evaluate_every: int | None = None,
    recalibrate: bool = False,
) -> dict[str, Any]:
    """As [`measurement_settings`], without what only model and images tell: FOUND."""
    datasets = [asdict(dataset) for dataset in task_args.datasets]
    younger = {  # than some manifests, which know a measurement by the settings without them
        "recalibrate": recalibrate,
        "batch_sizes": list(task_args.batch_sizes),
        "more_base_models": list(model_args.more_base_models),
        "trainable": model_args.trainable if model_args.trainable != ALL else None,
    }
    left_out = (*younger, *FOUND)
    return {
        **{name: value for name, value in asdict(model_args).items() if name not in left_out},
        **{name: value for name, value in younger.items() if value},
        "datasets": [{name: spec[name] for name in spec if name not in _WITHOUT_EFFECT} for spec in datasets],
        "num_classes": task_args.num_classes,
        "batch_size": task_args.batch_size,
        "evaluation_size": task_args.evaluation_size,
        "augmentations": list(task_args.augmentations),
        "seed": seed,
        "evaluate_every": evaluate_every,
        "versions": {name: installed_version(name) for name in PACKAGES},  # which round in their own ways
    }


def fingerprint(tasks: TaskDistribution, seed: int) -> str:
    """Returns 16 hexadecimal digits that change with images, labels and initial weights, whatever their names."""
    digest = hashlib.sha256()
    for source in tasks.sources:
        for pool in (source.batches, source.evaluation):
            probes = torch.linspace(0, len(pool.labels) - 1, NUM_PROBES).long()
            digest.update(_bytes(pool.labels) + _bytes(pool.fetch(probes)))
    for name, tensor in sorted(tasks.draw(seed, 0, 0).initial_state.items()):
        digest.update(name.encode() + _bytes(tensor))
    return digest.hexdigest()[:16]


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    Reads what [`write_manifest`] wrote.

    Returns:
        `dict`: For each file of rows what it was measured with; empty if there is no manifest.

    Raises:
        CheckpointError: If the manifest is damaged, or was edited.
    """
    file = folder / MANIFEST_NAME
    if not file.exists():
        return {}
    try:
        sections = json.loads(file.read_text(encoding="utf-8"))
        for section in sections.values():
            if section["hash"] != _hash(section):
                raise ValueError("its hash does not fit its content")
        return sections
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file} does not say what the rows beside it were measured with ({error}); restore it, or name another "
            "folder."
        ) from error


def write_manifest(folder: Path, name: str, section: Mapping[str, Any]) -> None:
    """Writes what the rows in the file `name` are measured with, and leaves what the manifest says of other files."""
    old = read_manifest(folder)
    new = {**old, name: {"hash": _hash(section), **section}}
    if new != old:
        write_files(folder, {MANIFEST_NAME: (json.dumps(new, indent=2) + "\n").encode()})


def differences(old: Any, new: Any) -> list[str]:
    """Returns what differs between two settings, each as `name was OLD, now NEW`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{name} was {json.dumps(before.get(name))}, now {json.dumps(after.get(name))}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def plain(settings: Any) -> Any:
    """Returns settings as they come back from JSON; what JSON does not know becomes text."""
    return json.loads(json.dumps(settings, default=str))


def installed_version(package: str) -> str | None:
    """Returns the version of a package, or `None` where it runs from a source tree that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, value


def _hash(section: Mapping[str, Any]) -> str:
    content = {name: value for name, value in section.items() if name != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
