"""Loads the pretrained image classifiers that tasks fine-tune, and refuses what is none."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import nn

from hf_l3rs.errors import ArtifactError, reason
from hf_l3rs.hub.errors import hub_errors
from hf_l3rs.hub.paths import refuse_missing_path, similar_folders
from hf_l3rs.hub.reach import hub_answers, is_repo_id, out_of_reach
from hf_l3rs.tasks.initial_states import head_modules


if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_CONFIG_NAME = "config.json"


def load_image_classifier(
    name_or_path: str, num_labels: int | None = None, revision: str | None = None
) -> PreTrainedModel:
    """
    Loads an image-classification model in float32, quietly: that a new head is a new head is no news here.

    Args:
        name_or_path (`str`): Hub id or folder.
        num_labels (`int`, *optional*): Size of the new head; without it the checkpoint's head is kept.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Returns:
        `PreTrainedModel`: The model. [`resolved_commit`] tells which commit it is of.

    Raises:
        ArtifactError: If it does not exist, cannot be had or read, is no image classifier, or its weights are damaged.
    """
    from transformers import AutoModelForImageClassification

    options = _locate(name_or_path, revision)
    if num_labels is not None:
        options |= {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    try:
        with _quiet_transformers():
            model, report = AutoModelForImageClassification.from_pretrained(
                name_or_path, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
            )
    except Exception as error:  # of every kind, as what is wrong with a model may be
        raise ArtifactError(
            f"{name_or_path!r} cannot be loaded as an image classifier ({reason(error)}); give the Hub id or the "
            "folder of an image-classification model of transformers, complete and undamaged."
        ) from error
    _check_weights(name_or_path, model, report, new_head=num_labels is not None)
    model.config._commit_hash = options.get("revision")  # some versions of transformers do so, and none writes it
    return model


def resolved_commit(model: nn.Module) -> str | None:
    """Returns the commit of the Hub that [`load_image_classifier`] loaded a model from; `None` for a folder."""
    return getattr(getattr(model, "config", None), "_commit_hash", None)


def _locate(name: str, revision: str | None) -> dict[str, Any]:
    """Returns how to load a model: from one commit, whatever is pushed meanwhile, and from the cache if need be."""
    if os.path.isdir(name):
        _check_config(name, Path(name, _CONFIG_NAME))
        return {}
    if not is_repo_id(name):
        raise ArtifactError(
            f"There is no folder {name!r}{similar_folders(name)}; give an existing folder, or the Hub id of a model."
        )
    refuse_missing_path(name)
    local_files_only = not hub_answers()
    with hub_errors(name, revision, _CONFIG_NAME):
        try:
            file = Path(hf_hub_download(name, _CONFIG_NAME, revision=revision, local_files_only=local_files_only))
        except LocalEntryNotFoundError as error:
            raise ArtifactError(out_of_reach(name)) from error
        except EntryNotFoundError as error:
            raise ArtifactError(
                f"{name!r} on the Hub has no {_CONFIG_NAME}, so it is no model of transformers; give the id of one."
            ) from error
    _check_config(name, file)
    return {"revision": file.parent.name, "local_files_only": local_files_only}


def _check_config(name: str, file: Path) -> None:
    """Finds what transformers would load all the same: it fills the gaps of whatever has a `model_type`."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{name!r} has no readable {_CONFIG_NAME} ({reason(error)}), so it is no model of transformers; save or "
            "download it again."
        ) from error
    if isinstance(config, dict) and {"format_version", "directions"} <= set(config):
        raise ArtifactError(
            f"{name!r} is an L3RS, not a model to fine-tune; give its base model ({config.get('base_model')})."
        )


def _check_weights(name: str, model: nn.Module, report: dict[str, Any], new_head: bool) -> None:
    """A new head is made anew in any case; everything else must come from the checkpoint."""
    head = tuple(f"{module}." for module in head_modules(model)) if new_head else ()
    trunk = [key for key, _ in model.named_parameters() if not key.startswith(head)]
    missing = sorted(set(report["missing_keys"]).intersection(trunk))
    misshapen = sorted({key for key, *_ in report["mismatched_keys"]}.intersection(trunk))
    if misshapen or len(missing) == len(trunk):
        problem = (
            f"has a shape that the config rules out in {misshapen[0]}" if misshapen else "has none of its weights"
        )
        raise ArtifactError(f"{name!r} {problem}: weights and config are of different models; download both again.")
    if missing:
        counts, names = f"{len(missing)} of {len(trunk)}", ", ".join(missing)
        logger.warning("%r lacks %s weights; random ones stand in for %s.", name, counts, names)
    for key, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ArtifactError(f"{name!r} has values that are not numbers in {key}; save or download it again.")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()
