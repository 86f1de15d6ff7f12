"""
Where an L3RS comes from, as its card tells it. A name is taken for a Hub id only if configuration or results say that
it is one: `outputs/digits` looks like one, too. Of any other name, which may be a path, the last part is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


HUB_ID = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)

_STARTED_FROM = "started_from"
# What may be fine-tuned in place of all; see `freeze` in hf_l3rs/tasks/trainable.py.
_PART = re.compile(r"head|(?:last|lora):[1-9][0-9]{0,3}")
# What a meta-training over several models says of them: names, and commits of those on the Hub.
_OF_SEVERAL_MODELS = ("base_model", "more_base_models", "revisions")


def last_part(path: str) -> str:
    """Returns the last part of a path, or a name as it is."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def known_hub_ids(meta_training: Mapping[str, Any], others: Iterable[str | None] = ()) -> set[str]:
    """
    Returns the data sets that certainly are on the Hub.

    Args:
        meta_training (`Mapping[str, Any]`): Of [`L3RSConfig`].
        others (`Iterable[str | None]`, *optional*): What results say of theirs.
    """
    ids = {data.get("hub_id") for data in _data_sets(meta_training)} | set(others)
    return {name for name in ids if name is not None and HUB_ID.fullmatch(name)}


def trained_on(meta_training: Mapping[str, Any], hub_ids: set[str]) -> list[str]:
    """Returns the data sets of meta-training that are on the Hub, those of the L3RS that it started from included."""
    names = [*_names(meta_training), *(data.get("hub_id") for data in _data_sets(meta_training))]
    return [name for name in names if name in hub_ids]


def describe_settings(meta_training: Mapping[str, Any], hub_ids: set[str]) -> dict[str, str]:
    """Returns what a card tells of meta-training, as texts: figures rounded, and paths without the way to them."""
    rows = {}
    for key, value in meta_training.items():
        if key == "data" and isinstance(value, list):
            rows[key] = "; ".join(_describe_data(data, hub_ids) for data in _own_data_sets(meta_training))
        elif key in ("datasets", "dataset"):  # names without a word on where they come from, as of hf_l3rs 0.1
            rows[key] = ", ".join(_shown(name, hub_ids) for name in _names({key: value}))
        elif key in _OF_SEVERAL_MODELS and base_models(meta_training):
            rows["base models"] = ", ".join(base_models(meta_training))
        elif key != _STARTED_FROM or not isinstance(value, dict):
            rows[key] = _text(value)
    earlier = meta_training.get(_STARTED_FROM)
    if isinstance(earlier, dict):
        settings = describe_settings(earlier, hub_ids).items()
        text = "; ".join(f"{key}: {value}" for key, value in settings if rows.get(key) != value)
        rows[f"{_STARTED_FROM} (where it differs)"] = text or "the same settings"
    return rows


def base_models(meta_training: Mapping[str, Any]) -> list[str]:
    """Returns what a card calls the models of a meta-training over several; without any, none."""
    first, others, revisions = map(meta_training.get, _OF_SEVERAL_MODELS)
    if not isinstance(others, list) or not all(isinstance(name, str) for name in (first, *others)):
        return []
    commits = revisions if isinstance(revisions, list) else []
    on_hub = [bool(commit) for commit in commits] + [False] * (1 + len(others))
    return [name if is_known else last_part(name) for name, is_known in zip((first, *others), on_hub)]


def trained_part(meta_training: Mapping[str, Any]) -> str | None:
    """Returns what of a model an L3RS was made to fine-tune, in words before its name, or `None` if all of it."""
    found = _PART.fullmatch(str(meta_training.get("trainable")))
    if found is None:
        return None
    kind, _, count = found[0].partition(":")
    number = "block" if count == "1" else f"{count} blocks"
    return {
        "head": "the head alone of",
        "last": f"the last {number} and the head of",
        "lora": f"LoRA adapters of rank {count} and the head of",
    }[kind]


def _own_data_sets(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    data = summary.get("data")
    return [
        each
        for each in (data if isinstance(data, list) else [])
        if isinstance(each, dict) and isinstance(each.get("path"), str) and isinstance(each.get("hub_id"), str | None)
    ]


def _data_sets(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    earlier = summary.get(_STARTED_FROM)
    return _own_data_sets(summary) + (_data_sets(earlier) if isinstance(earlier, dict) else [])


def _names(summary: Mapping[str, Any]) -> list[str]:
    values = [summary.get("datasets"), summary.get("dataset")]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return [name for name in names if isinstance(name, str)]


def _shown(name: str, hub_ids: set[str]) -> str:
    return name if name in hub_ids else last_part(name)


def _describe_data(data: Mapping[str, Any], hub_ids: set[str]) -> str:
    details = {
        key: value
        for key, value in data.items()
        if key not in ("hub_id", "path", "seen_roles") and value not in (None, {}, [])
    }
    name = _shown(data.get("hub_id") or data["path"], hub_ids)
    return f"{name} ({_text(details)})" if details else name


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(part)}" for key, part in value.items())
    return str(value)
