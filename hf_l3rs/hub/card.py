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
from hf_l3rs.hub.provenance import (
    HUB_ID,
    base_models,
    describe_settings,
    known_hub_ids,
    last_part,
    trained_on,
    trained_part,
)
from hf_l3rs.hub.results import OPTIMIZER_NAME, Result, Results
from hf_l3rs.markdown import (
    duration,
    listed,
    markdown_code,
    markdown_table,
    markdown_text,
    mean_with_stderr,
    one_line,
    percent_with_stderr,
)
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.layers import ROLE_PREFIX
from hf_l3rs.optimizer.network import tensor_shapes
from hf_l3rs.validation import short


# How results call what an L3RS was made for.
IN_DOMAIN = "in domain"
# Learning rates of a search, as an evaluation has it.
NUM_RATES = 11


def describe_gain(entries: Sequence[Result]) -> str | None:
    """
    Says after how many steps an L3RS is ahead of what it was compared with.

    Args:
        entries (`Sequence[Result]`): What was measured.

    Returns:
        `str` or `None`: Such as `"Measured on unseen tasks, its mean loss is lower than that of the best baseline
        after 20 and 50 steps, not after 10 (in domain: digits)."`; `None` where nothing was compared.
    """
    own = [each for each in entries if each.optimizer == OPTIMIZER_NAME and each.baseline_loss is not None]
    places: dict[tuple[str, str], list[str]] = {}  # settings by what was found, and on which data
    for place in dict.fromkeys((each.setting, each.shown_dataset) for each in own):
        here = [each for each in own if (each.setting, each.shown_dataset) == place]
        setting, dataset = map(markdown_text, (place[0] or "", place[1]))
        places.setdefault((_found(here), dataset), []).append(setting)
    parts = []
    for (found, dataset), settings in places.items():
        where = "; ".join(filter(None, settings))
        parts.append(f"{found} ({where}{': ' if where else ''}{dataset})")
    if not parts:
        return None
    return f"Measured on unseen tasks, its mean loss is lower than that of the best baseline {'; '.join(parts)}."


def _found(results: Sequence[Result]) -> str:
    """After how many steps the loss is lower than the best baseline's, and after how many it is not."""
    ahead = sorted({each.num_training_steps for each in results if each.loss < (each.baseline_loss or 0)})
    behind = sorted({each.num_training_steps for each in results} - {*ahead})
    found = [f"after {listed(ahead)} steps"] if ahead else []
    found += [f"not after {listed(behind)}{'' if ahead else ' steps'}"] if behind else []
    return ", ".join(found)


def describe_cost(meta_training: Mapping[str, Any], directions: Iterable[str]) -> str | None:
    """
    Says what making an L3RS took, and what is known of its step.

    Args:
        meta_training (`Mapping[str, Any]`): Of [`~hf_l3rs.L3RSConfig`].
        directions (`Iterable[str]`): What it mixes.

    Returns:
        `str` or `None`: `None` where nothing is known.
    """
    inner, plain, seconds = (
        _number(meta_training.get(name)) for name in ("inner_steps", "cost_in_plain_steps", "seconds")
    )
    sentences = []
    if inner is not None:
        worth = f", worth {plain:,.0f} plain ones" if plain is not None and plain > inner else ""
        time = f", in {duration(seconds)}" if seconds is not None else ""
        sentences.append(f"Making it took {inner:,.0f} inner steps{worth}{time}.")
    if "muon" in directions:
        sentences.append("With Muon among its directions, its step takes several times as long as Adam's on a CPU.")
    return " ".join(sentences) or None


def describe_payback(meta_training: Mapping[str, Any], longest: int | None, entries: Sequence[Result]) -> str | None:
    """
    Says after how many runs an L3RS has saved the steps that making it took.

    Args:
        meta_training (`Mapping[str, Any]`): Of [`~hf_l3rs.L3RSConfig`].
        longest (`int`, *optional*): The longest run of meta-training, in steps; longer ones count for nothing here.
        entries (`Sequence[Result]`): What was measured; the longest runs in domain up to `longest` count.

    Returns:
        `str` or `None`: `None` where that is not known.
    """
    cost = _number(meta_training.get("cost_in_plain_steps"))
    own = [
        each
        for each in entries
        if each.optimizer == OPTIMIZER_NAME and each.setting == IN_DOMAIN and each.num_training_steps <= (longest or 0)
    ]
    result = max(own, key=lambda each: each.num_training_steps, default=None)
    if not cost or result is None or result.step_ratio is None or result.num_diverged:
        return None
    steps, more = result.num_training_steps, result.step_ratio - 1  # in runs of the rival for the same loss
    searching = _runs(cost / (steps * (more + NUM_RATES - 1)))
    text = f"In runs of {steps} steps its making is paid back after about {searching} runs"
    text += f" beside a search of {NUM_RATES} learning rates for each"
    if result.step_ratio_bound is None and more > 0:
        text += f", about {_runs(cost / (steps * more))} beside the best rival at a known rate"
    return f"{text}."


def _runs(count: float) -> str:
    """A number of runs to two digits, which is more than is known."""
    digits = max(len(str(math.ceil(count))) - 2, 0)
    return f"{round(math.ceil(count), -digits):,}"


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None


TAGS = ("l3rs", "learned-optimizer", "image-classification", "fine-tuning", "arxiv:2408.09310")

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_MARKER = re.compile(r"<!-- hf_l3rs:(?P<kind>begin|end) (?P<name>[\w-]+) -->")
# By this, entries of the model index that hf_l3rs wrote are told from those that a person added.
_METRIC_NAME = re.compile(r"(?:accuracy|loss) after \d+ steps$")
_COLUMNS = "setting,data,optimizer,steps,loss,accuracy,baseline,its loss,its accuracy,wins,speed-up".split(",")
_LIMIT_COLUMNS = ["data limit", "gap closed"]  # where it was measured
_TEXTS = ("setting", "data", "optimizer", "baseline")


def generate_model_card(
    config: L3RSConfig,
    results: Results | None = None,
    *,
    repo_id: str | None = None,
    existing: ModelCard | None = None,
    picture: str | None = None,
) -> ModelCard:
    """
    Writes the card of an L3RS. The same arguments give the same bytes, and so does the own output as `existing`.

    Args:
        config ([`L3RSConfig`]): Of the L3RS.
        results ([`~hf_l3rs.hub.results.Results`], *optional*): What was measured with its meta-weights.
        repo_id (`str`, *optional*):
            Hub id for the examples; by default the name in the metadata of `existing`, or else one made from the base
            model's.
        existing (`ModelCard`, *optional*):
            The present card. Only what stands between its markers `<!-- hf_l3rs:begin ... -->` and
            `<!-- hf_l3rs:end ... -->` is replaced, and a section that was removed stays removed. Additional metadata,
            tags, license and results are kept.
        picture (`str`, *optional*): Name of a file beside the card that shows the results.

    Returns:
        `huggingface_hub.ModelCard`

    Raises:
        ArtifactError: If a marker of `existing` lacks its counterpart, or `repo_id` is none.
    """
    repo_id = repo_id or _name_of(existing) or _default_name(config)
    if not HUB_ID.fullmatch(repo_id):
        raise ArtifactError(f'{short(repo_id)} is not a Hub id of the form "user/name"; check it for a typo.')
    entries = results.entries if results is not None else ()
    data = _card_data(config, entries, repo_id.split("/")[-1], existing)
    generated = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        behaviour=markdown_text(results.behaviour) if results is not None and results.behaviour else None,
        picture=picture,
        **_template_values(config, entries, repo_id),
    )
    text = generated.text if existing is None else _merged_text(existing.text, generated.text)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text.strip()}\n")


def read_card(file: PathLike | None) -> ModelCard | None:
    """
    Reads a card from a file.

    Returns:
        `ModelCard` or `None`: `None` if there is no file.

    Raises:
        ArtifactError: If it is not text, or its metadata cannot be read.
    """
    if file is None or not os.path.isfile(file):  # also of a name that no file can have
        return None
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} is not text in UTF-8 ({one_line(error)}); correct or remove it.") from error
    try:
        card = ModelCard(text if text.startswith("---") else f"---\n{{}}\n---\n{text}")
        ModelCard(str(card))  # what cannot be written again cannot be brought up to date
        groups = [card.data.get(key) or [] for key in ("tags", "datasets", "metrics")]
        groups.append([each.metric_type for each in card.data.get("eval_results") or []])
        if not all(
            isinstance(group, (str, list)) and all(isinstance(text, str) for text in group) for group in groups
        ):
            raise TypeError("tags, data sets and metrics are texts")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise ArtifactError(
            f"The metadata between the lines --- at the top of {file} is not valid YAML of a model card; correct it."
        ) from error
    return card


def combine_cards(first: ModelCard | None, second: ModelCard | None) -> ModelCard | None:
    """
    Joins two versions of a card: the text of the first that a person wrote into, and the metadata of both, where the
    first has precedence.

    Raises:
        ArtifactError: If a marker lacks its counterpart.
    """
    if first is None or second is None:
        return first or second
    metadata = {**second.data.to_dict(), **first.data.to_dict()}
    metadata["tags"] = _union(first.data.get("tags"), second.data.get("tags"))
    is_edited = any(name is None and part.strip() for part, name in list(_split(first.text)))
    text = first.text if is_edited else second.text
    return ModelCard(f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}")


def _knows_roles(config: L3RSConfig) -> bool:
    """Whether it is for models that it never saw."""
    return bool(config.layers) and all(layer.name.startswith(ROLE_PREFIX) for layer in config.layers)


def _name_of(card: ModelCard | None) -> str | None:
    name = card.data.get("model_name") if card is not None else None
    return name if isinstance(name, str) and HUB_ID.fullmatch(name) else None


def _default_name(config: L3RSConfig) -> str:
    if _knows_roles(config):
        return "l3rs-universal-start"
    base = config.base_model or config.model_type
    return f"l3rs-{re.sub('[^A-Za-z0-9_.]+', '-', last_part(base)).strip('-.')}" if base else "l3rs"


def _card_data(config: L3RSConfig, entries: Sequence[Result], name: str, existing: ModelCard | None) -> ModelCardData:
    kept = existing.data.to_dict() if existing is not None else {}
    kept.pop("model-index", None)
    others = existing.data.get("eval_results") or [] if existing is not None else []
    evaluations = [*_evaluations(entries), *(other for other in others if not _is_generated(other))]
    generated = {
        "library_name": "hf_l3rs",
        "license": kept.get("license") or "apache-2.0",
        "tags": _union(kept.get("tags"), TAGS),
        "base_model": config.base_model if _is_on_hub(config) else kept.get("base_model"),
        "datasets": _union(kept.get("datasets"), trained_on(config.meta_training, _hub_ids(config, entries))) or None,
        "metrics": _union(kept.get("metrics"), sorted({each.metric_type for each in evaluations})) or None,
        "eval_results": evaluations or None,
        "model_name": name if evaluations else None,
    }
    return ModelCardData(**{**kept, **generated})


def _evaluations(entries: Sequence[Result]) -> list[EvalResult]:
    """The model index: loss and accuracy of the entries of L3RS itself."""
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=entry.shown_dataset,
            dataset_name=entry.shown_dataset,
            dataset_split=entry.split,
            metric_type=metric,
            metric_value=round(value, 4),
            metric_name=f"{metric} after {entry.num_training_steps} steps",
        )
        for entry in entries
        if entry.optimizer == OPTIMIZER_NAME
        for metric, value in (("accuracy", entry.accuracy), ("loss", entry.loss))
        if value is not None and math.isfinite(value)
    ]


def _is_generated(evaluation: EvalResult) -> bool:
    return bool(_METRIC_NAME.match(str(evaluation.metric_name)))


def _hub_ids(config: L3RSConfig, entries: Sequence[Result]) -> set[str]:
    return known_hub_ids(config.meta_training, [entry.hub_id for entry in entries])


def _is_on_hub(config: L3RSConfig) -> bool:
    return config.base_model_revision is not None and bool(HUB_ID.fullmatch(config.base_model or ""))


def _template_values(config: L3RSConfig, entries: Sequence[Result], repo_id: str) -> dict[str, Any]:
    architecture = {
        "layers with an embedding of their own": len(config.layers),
        "directions": ", ".join(config.directions),
        "features": ", ".join(config.features) or "none",
        "horizon (steps)": config.num_training_steps or "unknown",
        "max_grad_norm": config.max_grad_norm or "none",
    }
    settings = architecture | describe_settings(config.meta_training, _hub_ids(config, entries))
    return {
        "name": repo_id.split("/")[-1],
        "repo_id": repo_id,
        "base_model": _base_model(config),
        "part": trained_part(config.meta_training),
        "trainable": config.meta_training.get("trainable"),
        "knows_roles": _knows_roles(config),
        "num_meta_parameters": f"{sum(map(math.prod, tensor_shapes(config).values())):,}",
        "directions": listed(f"`{direction}`" for direction in config.directions),
        "num_training_steps": config.num_training_steps,
        "max_grad_norm": config.max_grad_norm,
        "gain": describe_gain(entries),
        "cost": _cost(config, entries),
        "batch_norm_momentum": config.batch_norm_momentum,
        "base_step": f"{config.base_step:g}",
        "settings": markdown_table(["setting", "value"], settings.items()),
        "results": _results_table(entries) if entries else None,
        "has_data_limit": _has_data_limit(entries),
        "commands": _union(map(_command, entries)),
    }


def _cost(config: L3RSConfig, entries: Sequence[Result]) -> str | None:
    sentences = (
        describe_cost(config.meta_training, config.directions),
        describe_payback(config.meta_training, config.num_training_steps, entries),
    )
    return " ".join(filter(None, sentences)) or None


def _base_model(config: L3RSConfig) -> str:
    """What the text calls the base model: a link if it is on the Hub, else a name, which may be any text."""
    if _is_on_hub(config):
        return f"[{config.base_model}](https://huggingface.co/{config.base_model})"
    if config.base_model:
        return markdown_code(last_part(config.base_model))
    if several := base_models(config.meta_training):
        return f"models such as {', '.join(map(markdown_code, several))}"
    return f"a {markdown_text(config.model_type)} model" if config.model_type else "its base model"


def _has_data_limit(entries: Sequence[Result]) -> bool:
    return any(entry.data_limit_loss is not None for entry in entries)


def _results_table(entries: Sequence[Result]) -> str:
    columns = _COLUMNS + _LIMIT_COLUMNS * _has_data_limit(entries)
    alignments = ["left" if name in _TEXTS else "right" for name in columns]
    return markdown_table(columns, [_row(entry)[: len(columns)] for entry in entries], alignments)


def _row(entry: Result) -> list[Any]:
    is_single = entry.num_tasks == 1  # of which older results have an error of 0
    return [
        entry.setting,
        f"{entry.shown_dataset} ({entry.split})",
        entry.optimizer,
        entry.num_training_steps,
        _measured(entry.loss, None if is_single else entry.loss_stderr),
        _percent(entry.accuracy, None if is_single else entry.accuracy_stderr),
        entry.baseline,
        _measured(entry.baseline_loss),
        _percent(entry.baseline_accuracy),
        None if entry.wins is None else f"{entry.wins} of {entry.num_tasks}",
        entry.speed_up,
        _measured(entry.data_limit_loss),
        None if entry.gap_closed is None else f"{100 * entry.gap_closed:.0f} %",
    ]


def _measured(value: float | None, stderr: float | None = None) -> str | None:
    if value is None:
        return None
    if value == math.inf:
        return "diverged"
    return mean_with_stderr(value, stderr)


def _percent(value: float | None, stderr: float | None = None) -> str | None:
    return None if value is None else percent_with_stderr(value, stderr)


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
