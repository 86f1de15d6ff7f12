"""The model card of an L3RS: metadata and text from configuration and results, merged with what a person wrote."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike
from hf_l3rs.hub.connection import is_repo_id
from hf_l3rs.hub.results import OPTIMIZER_NAME, UNTRAINED, Result, Results, last_part
from hf_l3rs.markdown import duration, listed, markdown_code, markdown_table, markdown_text, mean_with_stderr, one_line
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.layers import ROLE_PREFIX
from hf_l3rs.optimizer.network import tensor_shapes
from hf_l3rs.validation import short


IN_DOMAIN = "in domain"  # how results call what an L3RS was made for
TAGS = ("l3rs", "learned-optimizer", "image-classification", "fine-tuning", "arxiv:2408.09310")
# Models that recipes/base_models makes of weights in packages, and the Hub's models of the same layers.
SAME_LAYERS = {
    "outputs/base_models/mobilenet-v2": "google/mobilenet_v2_1.0_224",
    "outputs/base_models/efficientnet-lite0": "timm/tf_efficientnet_lite0.in1k",
}
MAX_ROWS = 7

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_MARKER = re.compile(r"<!-- hf_l3rs:(?P<kind>begin|end) (?P<name>[\w-]+) -->")
_METRIC_NAME = re.compile(r"(?:accuracy|loss) after \d+ steps")  # of results that hf_l3rs put into the model index
_PART = re.compile(r"head|(?:last|lora):[1-9][0-9]{0,3}")  # that is trained in place of all; see tasks.model.freeze


def generate_model_card(
    config: L3RSConfig,
    results: Results | None = None,
    *,
    repo_id: str | None = None,
    existing: ModelCard | None = None,
    picture: str | None = None,
    license: str | None = None,
    all_results: str = "results.json",
) -> ModelCard:
    """
    Writes the card of an L3RS, the same bytes for the same arguments. Of an `existing` card only what stands between
    the markers of hf_l3rs is replaced, and a section that was removed stays removed. `picture` is the name of a file
    beside the card, `all_results` what the table links to.
    """
    if repo_id is not None and not is_repo_id(repo_id):
        raise ArtifactError(f'{short(repo_id)} is not a Hub id of the form "user/name"; check it for a typo.')
    entries = results.entries if results else ()
    name = repo_id.split("/")[-1] if repo_id is not None else _default_name(config)
    data = _card_data(config, entries, name, existing, license)
    generated = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        repo_id=repo_id or "path/to/this/folder",
        behaviour=markdown_text(results.behaviour) if results and results.behaviour else None,
        picture=picture,
        all_results=all_results,
        config=config,
        **_config_values(config),
        **_result_values(entries),
    )
    text = generated.text if existing is None else _merged_text(existing.text, generated.text)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text.strip()}\n")


def read_card(file: PathLike | None) -> ModelCard | None:
    """Reads a card; `None` if there is no file. Refuses what is not text, or has metadata that cannot be read."""
    if file is None or not os.path.isfile(file):  # also of a name that no file can have
        return None
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} is not text in UTF-8 ({one_line(error)}); correct or remove it.") from error
    try:
        card = ModelCard(text if text.startswith("---") else f"---\n{{}}\n---\n{text}")
        ModelCard(str(card))  # what cannot be written again cannot be brought up to date
        groups = [card.data.get(key) for key in ("tags", "datasets", "metrics")]
        groups.append([each.metric_type for each in card.data.get("eval_results") or ()])
        if any(isinstance(each, dict) for each in groups) or not all(
            isinstance(each, str) for each in _union(*groups)
        ):
            raise TypeError("tags, data sets and metrics are texts")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise ArtifactError(
            f"The metadata between the lines --- at the top of {file} is not valid YAML of a model card; correct it."
        ) from error
    return card


def combine_cards(first: ModelCard | None, second: ModelCard | None) -> ModelCard | None:
    """Joins two versions of a card: the text of the first if a person edited it, and the metadata of both."""
    if first is None or second is None:
        return first or second
    metadata = {**second.data.to_dict(), **first.data.to_dict()}
    metadata["tags"] = _union(first.data.get("tags"), second.data.get("tags"))
    is_edited = any(name is None and part.strip() for part, name in [*_split(first.text)])
    text = first.text if is_edited else second.text
    return ModelCard(f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}")


def describe_gain(entries: Sequence[Result]) -> str | None:
    """Says after how many steps an L3RS is ahead of the best baseline, level or behind; not in domain, how often."""
    own = [entry for entry in entries if entry.optimizer == OPTIMIZER_NAME and entry.verdict]
    in_domain = [entry for entry in own if entry.setting == IN_DOMAIN]
    found = {
        verdict: [entry.num_training_steps for entry in in_domain or own if entry.verdict == verdict]
        for verdict in ("ahead", "level", "behind")
    }
    if in_domain:
        parts = [f"{verdict} after {listed(steps)}" for verdict, steps in found.items() if steps]
        return f"{IN_DOMAIN}: {', '.join(parts)} steps"
    parts = [f"{verdict} in {len(steps)}" for verdict, steps in found.items() if steps]
    return f"{len(own)} comparisons: {', '.join(parts)}" if own else None


def trained_part(meta_training: Mapping[str, Any]) -> str | None:
    """Returns what of a model an L3RS was made to fine-tune, in words before its name, or `None` if all of it."""
    part = str(meta_training.get("trainable"))
    if not _PART.fullmatch(part):
        return None
    kind, _, count = part.partition(":")
    if kind == "head":
        return "the head alone of"
    blocks = "block" if count == "1" else f"{count} blocks"
    return f"the last {blocks} and the head of" if kind == "last" else f"LoRA adapters of rank {count} and the head of"


def base_of(config: L3RSConfig, *, markdown: bool = False) -> str:
    """Returns what an L3RS was made for: a Hub id, or the name of a folder with the Hub's model of the same layers."""
    name = config.base_model
    if _knows_roles(config):
        return "any image classifier"
    if name is None:
        return f"a {markdown_text(config.model_type)} model" if config.model_type else "its base model"
    link = "[{0}](https://huggingface.co/{0})".format if markdown else str
    if _is_on_hub(config):
        return link(name)
    shown = markdown_code(last_part(name)) if markdown else last_part(name)
    return f"{shown} (same layers as {link(SAME_LAYERS[name])})" if name in SAME_LAYERS else shown


def _knows_roles(config: L3RSConfig) -> bool:
    return bool(config.layers) and all(layer.name.startswith(ROLE_PREFIX) for layer in config.layers)


def _is_on_hub(config: L3RSConfig) -> bool:
    return config.base_model_revision is not None and is_repo_id(config.base_model or "")


def _default_name(config: L3RSConfig) -> str:
    base = config.base_model or config.model_type
    return f"l3rs-{re.sub('[^A-Za-z0-9_.]+', '-', last_part(base)).strip('-.')}" if base else "l3rs"


def _card_data(
    config: L3RSConfig, entries: Sequence[Result], name: str, existing: ModelCard | None, license: str | None
) -> ModelCardData:
    kept = existing.data.to_dict() if existing else {}
    kept.pop("model-index", None)
    others = existing.data.get("eval_results") or [] if existing else []
    evaluations = [
        *_evaluations(entries),
        *(each for each in others if not _METRIC_NAME.match(str(each.metric_name))),  # which a person added
    ]
    generated = {
        "library_name": "hf-l3rs",
        "license": license or kept.get("license"),
        "tags": _union(kept.get("tags"), TAGS),
        "base_model": config.base_model if _is_on_hub(config) else kept.get("base_model"),
        "datasets": _union(kept.get("datasets"), _trained_on(config.meta_training)) or None,
        "metrics": _union(kept.get("metrics"), sorted({each.metric_type for each in evaluations})) or None,
        "eval_results": evaluations or None,
        "model_name": name if evaluations else None,
    }
    return ModelCardData(**{**kept, **generated})


def _trained_on(meta_training: Any) -> Iterator[str]:
    """The data sets on the Hub that meta-training used, and those of the L3RS that it started from."""
    if isinstance(meta_training, Mapping):
        data = meta_training.get("data")
        for each in data if isinstance(data, list) else ():
            hub_id = each.get("hub_id") if isinstance(each, Mapping) else None
            if isinstance(hub_id, str) and is_repo_id(hub_id):
                yield hub_id
        yield from _trained_on(meta_training.get("started_from"))


def _evaluations(entries: Sequence[Result]) -> list[EvalResult]:
    """The model index: loss and accuracy of the L3RS itself."""
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=entry.shown_dataset,
            dataset_name=entry.shown_dataset,
            dataset_split=entry.split,
            metric_type=metric,
            metric_value=round(value, 4),
            metric_name=", ".join(filter(None, (f"{metric} after {entry.num_training_steps} steps", entry.setting))),
        )
        for entry in entries
        if entry.optimizer == OPTIMIZER_NAME
        for metric, value in (("accuracy", entry.accuracy), ("loss", entry.loss))
        if value is not None and math.isfinite(value)
    ]


def _config_values(config: L3RSConfig) -> dict[str, Any]:
    return {
        "base_model": base_of(config, markdown=True),
        "part": trained_part(config.meta_training),
        "knows_roles": _knows_roles(config),
        "num_meta_parameters": f"{sum(map(math.prod, tensor_shapes(config).values())):,}",
        "directions": listed(f"`{direction}`" for direction in config.directions),
        "cost": _describe_cost(config.meta_training),
        "datasets": ", ".join(_union(_trained_on(config.meta_training))),
        "base_step": f"{config.base_step:g}",
    }


def _describe_cost(meta_training: Mapping[str, Any]) -> str | None:
    """What making an L3RS took, as far as its configuration tells."""
    found = (meta_training.get(name) for name in ("inner_steps", "cost_in_plain_steps", "seconds"))
    inner, plain, seconds = (value if isinstance(value, (int, float)) else 0 for value in found)
    worth = f", worth {plain:,.0f} plain ones" if plain > inner else ""
    took = f", in {duration(seconds)}" if seconds > 0 else ""
    return f"{inner:,.0f} inner steps{worth}{took}" if inner > 0 else None


def _result_values(entries: Sequence[Result]) -> dict[str, Any]:
    own = [entry for entry in entries if entry.optimizer == OPTIMIZER_NAME]
    untrained = {entry.task: entry for entry in entries if entry.optimizer == UNTRAINED}
    shown = _chosen(own)
    lines = [_row(entry, untrained.get(entry.task)) for entry in shown]
    headers = ("setting", "steps", "best baseline", "L3RS", "wins", "untrained")
    alignments = ("left", "right", "left", "right", "right", "right")
    as_good_untrained = [  # within the standard error
        entry.num_training_steps
        for entry in own
        if entry.setting == IN_DOMAIN
        and entry.task in untrained
        and untrained[entry.task].loss <= entry.loss + (entry.loss_stderr or 0)
    ]
    return {
        "gain": describe_gain(entries),
        "results": markdown_table(headers, lines, alignments) if lines else None,
        "as_good_untrained": listed(as_good_untrained) if as_good_untrained else None,
        "num_tasks": listed(sorted({entry.num_tasks for entry in shown})) if shown else None,
        "commands": _union(map(_command, own)),
    }


def _chosen(own: Sequence[Result]) -> list[Result]:
    """Some results of all settings: all lengths of the first one as far as there is room, and one of each other."""
    once = {(each.shown_dataset, each.num_training_steps, each.loss, each.baseline_loss): each for each in own[::-1]}
    different = list(once.values())[::-1]
    if len(different) <= MAX_ROWS:
        return different
    by_setting: dict[tuple[object, ...], list[Result]] = {}
    for entry in different:
        by_setting.setdefault((entry.setting, entry.shown_dataset), []).append(entry)
    first, *others = by_setting.values()
    rest = [entries[len(entries) // 2] for entries in others][: MAX_ROWS - 1]
    return [*first[: MAX_ROWS - len(rest)], *rest]


def _row(entry: Result, untrained: Result | None) -> list[Any]:
    own = _loss(entry.loss, entry.loss_stderr if entry.num_tasks > 1 else None)
    baseline = None if entry.baseline_loss is None else f"{_loss(entry.baseline_loss)}, {entry.baseline}"
    wins = () if entry.wins is None else (f"{entry.wins} of {entry.num_tasks}", entry.verdict)
    return [
        ": ".join(filter(None, (entry.setting, last_part(entry.shown_dataset)))),
        entry.num_training_steps,
        baseline,
        f"**{own}**" if entry.verdict == "ahead" else own,
        ", ".join(filter(None, wins)),
        None if untrained is None else _loss(untrained.loss),
    ]


def _loss(value: float, stderr: float | None = None) -> str:
    return "diverged" if value == math.inf else mean_with_stderr(value, stderr)


def _command(entry: Result) -> str:
    """A command as a line of a block of code, which it can neither end nor take for a section of the card."""
    return one_line(entry.command).replace("```", "'''").replace("<!--", "<! --")


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """Splits a text into generated sections, each with its name, and what a person wrote around them, with `None`."""
    end, opened = 0, None
    for marker in _MARKER.finditer(text):
        if opened is None and marker["kind"] == "begin":
            opened = marker
        elif opened is not None and marker["kind"] == "end" and marker["name"] == opened["name"]:
            yield text[end : opened.start()], None
            yield text[opened.start() : marker.end()], marker["name"]
            end, opened = marker.end(), None
        else:
            opened = opened or marker
            break
    if opened is not None:
        raise ArtifactError(
            f"The model card has the marker {short(opened[0])} without its counterpart; restore the other one, or "
            "remove it."
        )
    yield text[end:], None


def _merged_text(existing: str, generated: str) -> str:
    """Replaces the generated sections of `existing`; without any, `generated` is put below what stands there."""
    sections = {name: part for part, name in _split(generated)}
    parts = list(_split(existing))
    if len(parts) == 1:
        return f"{existing.strip()}\n\n{generated.strip()}"
    return "".join(part if name is None else sections.get(name, part) for part, name in parts)


def _union(*groups: str | Iterable[str] | None) -> list[str]:
    """All values in their order, each once. A lone string is one value."""
    values: dict[str, None] = {}
    for group in groups:
        values.update(dict.fromkeys([group] if isinstance(group, str) else group or ()))
    return list(values)
