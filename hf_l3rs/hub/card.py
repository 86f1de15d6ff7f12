"""The model card of an L3RS, and the measured results that it reports."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import write_files
from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.network import L3RSNetwork


RESULTS_VERSION = 1
OPTIMIZER_NAME = "L3RS"
TAGS = ("l3rs", "learned-optimizer", "image-classification", "fine-tuning", "arxiv:2408.09310")

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_SECTION = re.compile(r"<!-- hf_l3rs:begin (?P<name>[\w-]+) -->.*?<!-- hf_l3rs:end (?P=name) -->", re.DOTALL)
_MARKER = re.compile(r"<!-- hf_l3rs:(?:begin|end) [\w-]+ -->")
# By this, entries of the model index that hf_l3rs wrote are told from those that a person added.
_METRIC_NAME = re.compile(r"(?:accuracy|loss) after \d+ steps$")


@dataclass(frozen=True)
class Result:
    """
    One measurement: an optimizer on one data set for one number of steps.

    Args:
        optimizer (`str`): What was measured. Only `"L3RS"` enters the card's model index.
        dataset (`str`): Hub id or name of the data.
        split (`str`): Split that loss and accuracy are of.
        num_training_steps (`int`): Optimizer steps of each run.
        num_tasks (`int`): Runs that the means are over.
        loss (`float`): Mean loss after the last step, in nats; infinity if a run diverged.
        command (`str`): The shell command that measures it again.
        setting (`str`, *optional*): How the tasks relate to meta-training, such as `"in domain"`.
        loss_stderr (`float`, *optional*): Standard error of `loss` over tasks.
        accuracy (`float`, *optional*): Mean accuracy, between 0 and 1.
        accuracy_stderr (`float`, *optional*): Standard error of `accuracy` over tasks.
        baseline (`str`, *optional*): The optimizer that it is compared with, on the same tasks and steps.
        baseline_loss (`float`, *optional*): Mean loss of the baseline; infinity if a run diverged.
        baseline_accuracy (`float`, *optional*): Mean accuracy of the baseline.
        wins (`int`, *optional*): Tasks on which the loss is lower than the baseline's.
        step_ratio (`float`, *optional*):
            Steps that the baseline needs for the same loss, divided by `num_training_steps`: 2.0 is half the steps.
        num_diverged (`int`, *optional*): Tasks on which the run diverged; none by default.

    Raises:
        ArtifactError: If a value is of a wrong type or out of its range.
    """

    optimizer: str
    dataset: str
    split: str
    num_training_steps: int
    num_tasks: int
    loss: float
    command: str
    setting: str | None = None
    loss_stderr: float | None = None
    accuracy: float | None = None
    accuracy_stderr: float | None = None
    baseline: str | None = None
    baseline_loss: float | None = None
    baseline_accuracy: float | None = None
    wins: int | None = None
    step_ratio: float | None = None
    num_diverged: int | None = None

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if value is None and spec.default is None:
                continue
            if spec.name in _TEXTS:
                is_valid, allowed = isinstance(value, str) and bool(value.strip()), "text that is not empty"
            elif spec.name in _COUNTS:
                is_valid, allowed = isinstance(value, int) and _is_finite(value), "a whole number from 0"
            else:
                may_diverge = spec.name in ("loss", "baseline_loss") and value == float("inf")
                is_valid, allowed = may_diverge or _is_finite(value), "a finite number from 0"
            if not is_valid:
                raise ArtifactError(f"Result.{spec.name} must be {allowed}, got {value!r}.")
        for name in ("accuracy", "baseline_accuracy"):
            value = getattr(self, name)
            if value is not None and value > 1:
                raise ArtifactError(f"Result.{name} must lie between 0 and 1, got {value!r}; do not store percent.")
        for name in ("wins", "num_diverged"):
            value = getattr(self, name)
            if value is not None and value > self.num_tasks:
                raise ArtifactError(f"Result.{name} must be at most num_tasks={self.num_tasks}, got {value}.")


_TEXTS = ("optimizer", "dataset", "split", "command", "setting", "baseline")
# JSON has no infinity.
_INFINITY = "infinity"
_COUNTS = ("num_training_steps", "num_tasks", "wins", "num_diverged")


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


@dataclass(frozen=True)
class Results:
    """
    What was measured with one set of meta-weights; stored as `results.json` beside them.

    Args:
        fingerprint (`str`): [`~hf_l3rs.L3RSNetwork.fingerprint`] of the meta-weights that were measured.
        entries (`tuple[Result, ...]`): In the order of the card's table.
    """

    fingerprint: str
    entries: tuple[Result, ...]


def write_results(results: Results, file: str | os.PathLike[str]) -> None:
    """Writes results as JSON: the same bytes for the same results, and never half of a file."""
    entries = [
        {
            key: _INFINITY if value == float("inf") else value
            for key, value in asdict(entry).items()
            if value is not None
        }
        for entry in results.entries
    ]
    content = {"format_version": RESULTS_VERSION, "fingerprint": results.fingerprint, "results": entries}
    file = Path(file)
    write_files(file.parent, {file.name: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()})


def read_results(file: str | os.PathLike[str]) -> Results:
    """
    Reads what [`write_results`] wrote, strictly.

    Raises:
        ArtifactError: If the file is unreadable, of a newer format, or an entry has an unknown, missing or bad value.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read as JSON; measure again, or remove the file.") from error
    parts = ("format_version", "fingerprint", "results")
    if (
        not isinstance(content, Mapping)
        or sorted(content) != sorted(parts)
        or not isinstance(content["results"], list)
    ):
        raise ArtifactError(f"{file} must hold exactly {', '.join(parts)}; write it with hf_l3rs's write_results.")
    if content["format_version"] != RESULTS_VERSION:
        raise ArtifactError(
            f"{file} has format_version {content['format_version']!r}, but the installed hf_l3rs reads "
            f"{RESULTS_VERSION}; upgrade it with `pip install -U hf_l3rs`."
        )
    entries = []
    for number, entry in enumerate(content["results"]):
        try:
            infinite = {name: float("inf") for name in ("loss", "baseline_loss") if entry.get(name) == _INFINITY}
            entries.append(Result(**{**entry, **infinite}))
        except (TypeError, AttributeError, ArtifactError) as error:
            raise ArtifactError(f"Entry {number} of {file} is not a result: {error}") from error
    return Results(str(content["fingerprint"]), tuple(entries))


def generate_model_card(
    config: L3RSConfig,
    results: Results | None = None,
    *,
    repo_id: str | None = None,
    existing: ModelCard | None = None,
) -> ModelCard:
    """
    Writes the card of an L3RS. The same arguments give the same bytes, and so does the own output as `existing`.

    Args:
        config ([`L3RSConfig`]): Of the L3RS.
        results ([`Results`], *optional*): What was measured with its meta-weights.
        repo_id (`str`, *optional*): Hub id for the examples; a name made from the base model's by default.
        existing (`ModelCard`, *optional*):
            The present card. Only what stands between its markers `<!-- hf_l3rs:begin ... -->` and
            `<!-- hf_l3rs:end ... -->` is replaced, and a section that was removed stays removed. Additional metadata,
            tags, license and results are kept.

    Returns:
        `huggingface_hub.ModelCard`

    Raises:
        ArtifactError: If a marker of `existing` lacks its counterpart.
    """
    repo_id = repo_id or _default_name(config)
    entries = results.entries if results is not None else ()
    data = _card_data(config, entries, repo_id.split("/")[-1], existing)
    generated = ModelCard.from_template(
        data, template_path=str(_TEMPLATE), **_template_values(config, entries, repo_id)
    )
    text = generated.text if existing is None else _merged_text(existing.text, generated.text)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text.strip()}\n")


def read_card(file: str | os.PathLike[str] | None) -> ModelCard | None:
    """
    Reads a card from a file.

    Returns:
        `ModelCard` or `None`: `None` if there is no file.

    Raises:
        ArtifactError: If its metadata cannot be read.
    """
    if file is None or not Path(file).is_file():
        return None
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
        return ModelCard(text if text.startswith("---") else f"---\n{{}}\n---\n{text}")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ArtifactError(
            f"The metadata between the lines --- at the top of {file} is not valid YAML of a model card; correct it."
        ) from error


def combine_cards(first: ModelCard | None, second: ModelCard | None) -> ModelCard | None:
    """
    Joins two versions of a card: the text of the first that a person wrote into, and the metadata of both, where the
    first has precedence.
    """
    if first is None or second is None:
        return first or second
    metadata = {**second.data.to_dict(), **first.data.to_dict()}
    metadata["tags"] = _union(first.data.get("tags"), second.data.get("tags"))
    text = first.text if _SECTION.sub("", first.text).strip() else second.text
    return ModelCard(f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}")


def _default_name(config: L3RSConfig) -> str:
    base = config.base_model or config.model_type
    return f"l3rs-{Path(base).name}" if base else "l3rs"


def _card_data(config: L3RSConfig, entries: Sequence[Result], name: str, existing: ModelCard | None) -> ModelCardData:
    kept = existing.data.to_dict() if existing is not None else {}
    kept.pop("model-index", None)
    others = existing.data.get("eval_results") or [] if existing is not None else []
    evaluations = [*_evaluations(entries), *(other for other in others if not _is_generated(other))]
    trained_on = config.meta_training.get("datasets") or config.meta_training.get("dataset")
    generated = {
        "library_name": "hf_l3rs",
        "license": kept.get("license") or "apache-2.0",
        "tags": _union(kept.get("tags"), TAGS),
        "base_model": config.base_model if _is_hub_model(config.base_model) else kept.get("base_model"),
        "datasets": _union(kept.get("datasets"), filter(_is_hub_dataset, _union(trained_on))) or None,
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
            dataset_type=entry.dataset,
            dataset_name=entry.dataset,
            dataset_split=entry.split,
            metric_type=metric,
            metric_value=round(value, 4),
            metric_name=f"{metric} after {entry.num_training_steps} steps",
        )
        for entry in entries
        if entry.optimizer == OPTIMIZER_NAME
        for metric, value in (("accuracy", entry.accuracy), ("loss", entry.loss))
        if value is not None and value < float("inf")
    ]


def _is_generated(evaluation: EvalResult) -> bool:
    return bool(_METRIC_NAME.match(evaluation.metric_name or ""))


def _template_values(config: L3RSConfig, entries: Sequence[Result], repo_id: str) -> dict[str, Any]:
    architecture = {
        "layers with an embedding of their own": len(config.layers),
        "directions": ", ".join(config.directions),
        "features": ", ".join(config.features) or "none",
        "horizon (steps)": config.num_training_steps or "unknown",
        "max_grad_norm": config.max_grad_norm or "none",
    }
    settings = {**architecture, **config.meta_training}
    base = config.base_model or ""
    link = f"[{base}](https://huggingface.co/{base})" if _is_hub_model(base) else f"`{Path(base).name}`"
    return {
        "name": repo_id.split("/")[-1],
        "repo_id": repo_id,
        "base_model": link if base else f"a {config.model_type} model" if config.model_type else "its base model",
        "num_meta_parameters": f"{L3RSNetwork(config).num_meta_parameters:,}",
        "directions": " and ".join(f"`{direction}`" for direction in config.directions),
        "num_training_steps": config.num_training_steps,
        "max_grad_norm": config.max_grad_norm,
        "settings": [(_cell(key), _cell(value)) for key, value in settings.items()],
        "results": [_row(entry) for entry in entries],
        "commands": _union(" ".join(entry.command.split()) for entry in entries),
    }


def _row(entry: Result) -> list[str]:
    return [
        _cell(entry.setting),
        _cell(f"{entry.dataset} ({entry.split})"),
        _cell(entry.optimizer),
        str(entry.num_training_steps),
        _measured(entry.loss, entry.loss_stderr),
        _measured(entry.accuracy, entry.accuracy_stderr),
        _cell(entry.baseline),
        _measured(entry.baseline_loss),
        _measured(entry.baseline_accuracy),
        "" if entry.wins is None else f"{entry.wins} of {entry.num_tasks}",
        "" if entry.step_ratio is None else f"{entry.step_ratio:.2f}",
    ]


def _measured(value: float | None, stderr: float | None = None) -> str:
    if value is None:
        return ""
    if value == float("inf"):
        return "diverged"
    return f"{value:.4f}" if stderr is None else f"{value:.4f} ± {stderr:.4f}"


def _cell(value: Any) -> str:
    """Text for one cell of a table: a line break or a bar would end it, and a comment could pass for a marker."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.replace("|", r"\|").replace("<!--", "&lt;!--").split())


def _merged_text(existing: str, generated: str) -> str:
    """Replaces the generated sections of `existing`; without any, `generated` is put below what stands there."""
    sections = {match["name"]: match[0] for match in _SECTION.finditer(generated)}
    stray = _MARKER.search(_SECTION.sub("", existing))
    if stray is not None:
        raise ArtifactError(
            f"The model card has the marker {stray[0]!r} without its counterpart; restore the other one, or remove it."
        )
    if _SECTION.search(existing) is None:
        return f"{existing.strip()}\n\n{generated.strip()}"
    return _SECTION.sub(lambda match: sections.get(match["name"], match[0]), existing)


def _union(*groups: str | Iterable[str] | None) -> list[str]:
    """All values in their order, each once. A lone string is one value."""
    values: dict[str, None] = {}
    for group in groups:
        values.update(dict.fromkeys([group] if isinstance(group, str) else group or ()))
    return list(values)


def _is_hub_model(name: str | None) -> bool:
    return name is not None and re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None


def _is_hub_dataset(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(?:/[\w.-]+)?", str(name)) is not None
