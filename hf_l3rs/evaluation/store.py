"""What a benchmark measures: rows, their table on disk, and the manifest that says what they were measured with."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from hf_l3rs.errors import CheckpointError, DataError, reason
from hf_l3rs.evaluation.baselines import Contender, installed_version
from hf_l3rs.files import PathLike, append_line, write_files
from hf_l3rs.tasks.distribution import TaskDistribution
from hf_l3rs.tasks.model import resolved_commit
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


MANIFEST_NAME = "manifest.json"
PACKAGES = ("hf_l3rs", "torch", "transformers")
NUM_PROBES = 16  # images of each pool that enter the fingerprint, beside all labels
_WITHOUT_EFFECT = ("hub_id", "max_memory_gb")  # settings of data sets that change no row

RunKey = tuple[str, float | None, int, int]  # optimizer, learning rate, task, number of steps


@dataclass(frozen=True)
class Run:
    """One run of a benchmark: a contender on the task of this index for a number of steps."""

    contender: Contender
    task: int
    num_training_steps: int

    @property
    def key(self) -> RunKey:
        return self.contender.name, self.contender.learning_rate, self.task, self.num_training_steps


@dataclass(frozen=True)
class Row:
    """One evaluation of one run. Six significant digits are kept, so that a row in memory is the row on disk."""

    optimizer: str
    learning_rate: float | None
    task: int  # the same for all contenders
    num_training_steps: int
    step: int
    loss: float  # in nats; infinite if the run diverged
    accuracy: float  # 0 if the run diverged

    def __post_init__(self) -> None:
        diverged = not math.isfinite(self.loss)
        object.__setattr__(self, "loss", math.inf if diverged else float(f"{self.loss:.6g}"))
        object.__setattr__(self, "accuracy", 0.0 if diverged else float(f"{self.accuracy:.6g}"))

    @property
    def is_final(self) -> bool:
        return self.step == self.num_training_steps

    @property
    def run(self) -> RunKey:
        return self.optimizer, self.learning_rate, self.task, self.num_training_steps


# The columns, and what is in them.
_TYPES = {"optimizer": str, "learning_rate": float, "task": int, "num_training_steps": int, "step": int}
_TYPES |= {"loss": float, "accuracy": float}
COLUMNS = tuple(_TYPES)


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Returns rows as a table, with a column for each field of [`Row`]; a learning rate that is `None` is NaN."""
    return pd.DataFrame(map(astuple, rows), columns=list(COLUMNS)).astype({"learning_rate": float})


def final_rows(rows: Iterable[Row]) -> pd.DataFrame:
    """Returns the ends of all runs as a table, as [`to_frame`] does."""
    return to_frame(row for row in rows if row.is_final)


def to_csv(rows: Iterable[Row], header: bool = True) -> str:
    """Returns rows as CSV, one a line; `datasets.load_dataset("csv", data_files=...)` reads the file."""
    frame = to_frame(rows)
    digits = {name: frame[name].map("{:.6g}".format) for name in ("loss", "accuracy")}
    return frame.assign(**digits).to_csv(index=False, header=header, lineterminator="\n")


def write_rows(rows: Iterable[Row], path: PathLike) -> None:
    """Writes rows as CSV, all or nothing."""
    write_files(Path(path).parent, {Path(path).name: to_csv(rows).encode()})


def read_rows(path: PathLike, whole: bool = True) -> list[Row]:
    """Reads rows; further columns are ignored. Without `whole`, half a last line, of a killed process, is dropped."""
    try:
        data = Path(path).read_bytes()
        lines = io.BytesIO(data if whole else data[: data.rfind(b"\n") + 1])
        text = pd.read_csv(lines, dtype=str, na_filter=False)  # an optimizer may be called NA
        if not set(COLUMNS) <= set(text) or not isinstance(text.index, pd.RangeIndex):  # one too many makes an index
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        frame = text[list(COLUMNS)].replace({"learning_rate": {"": "nan"}}).astype(_TYPES)
        if not (frame.loss.ge(0) & frame.accuracy.between(0, 1)).all():
            raise ValueError("a loss or an accuracy is not a number of its range")
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} does not hold the rows of a benchmark ({reason(error)}); run it again.") from error
    values = frame.astype(object).where(frame.notna(), None)
    return [Row(*line) for line in values.itertuples(index=False, name=None)]


def ranked(finals: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Ranks groups of final rows: the fewest diverged runs first, then the lowest mean loss of the others."""
    diverged = finals.loss == math.inf
    groups = finals.assign(num_diverged=diverged, loss=finals.loss.where(~diverged)).groupby(list(by), sort=False)
    table = groups.agg(num_diverged=("num_diverged", "sum"), loss=("loss", "mean")).reset_index()
    return table.sort_values(["num_diverged", "loss"], kind="stable")


class RowStore:
    """
    A CSV of rows, which several comparisons may share. While it is being measured, each process appends the rows of
    each run that it finishes to a file of its own in a folder beside the table, which the finished table replaces.
    `manifest.json` says what the rows were measured with: nothing is added to, or taken from, rows of other
    [`measurement_settings`].
    """

    def __init__(self, file: PathLike, settings: Mapping[str, Any], remedy: str = "name another folder") -> None:
        self.file, self.settings, self.remedy = Path(file), _plain(settings), remedy
        self.parts = self.file.with_name(f"{self.file.stem}.parts")
        self._part = f"{uuid.uuid4().hex}.csv"  # never one that a killed process left, with half a line at its end

    def check(self, identities: Mapping[str, Any]) -> dict[str, Any]:
        """
        Checks that rows that are there already were measured with these settings and optimizers, whose identities are
        given by name. Returns the identities of the rows that are there.
        """
        if not (self.file.exists() or self.parts.exists()):
            return {}
        section = read_manifest(self.file.parent).get(self.file.name)
        if section is None:
            raise CheckpointError(
                f"{self.file} has no entry in a {MANIFEST_NAME} beside it, so what it was measured with is unknown; "
                f"move it away, or {self.remedy}."
            )
        known = section["optimizers"]
        both = known.keys() & identities.keys()
        changed = _differences(section["settings"], self.settings)
        changed += _differences(*({name: each[name] for name in sorted(both)} for each in (known, _plain(identities))))
        if changed:
            more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise CheckpointError(
                f"{self.file} was measured with other settings ({'; '.join(changed[:3])}{more}); restore them, or "
                f"{self.remedy}."
            )
        return known

    def open(self, runs: Sequence[Run]) -> list[Row]:
        """Checks and prepares the store for runs, on one process. Returns the rows of all runs that are finished."""
        identities = {run.contender.name: run.contender.identity for run in runs}
        optimizers = {**self.check(identities), **_plain(identities)}
        rows, manifest = self._read(), read_manifest(self.file.parent)
        section = {"settings": self.settings, "optimizers": optimizers}
        if manifest.get(self.file.name) != section:
            text = json.dumps({**manifest, self.file.name: section}, indent=2)
            write_files(self.file.parent, {MANIFEST_NAME: f"{text}\n".encode()})
        return rows

    def append(self, rows: Iterable[Row]) -> None:
        """Adds the rows of one finished run, at once and durably. Each process may call it."""
        if not (self.parts / self._part).exists():
            write_files(self.parts, {self._part: to_csv([]).encode()})
        append_line(self.parts / self._part, to_csv(rows, header=False).removesuffix("\n"))

    def close(self, rows: Sequence[Row]) -> None:
        """Writes the finished table, in this order, and then what else it held; on one process."""
        wanted = {row.run for row in rows}
        others = [row for row in self._read() if row.run not in wanted]
        if self.parts.exists() or not self.file.exists():
            write_rows([*rows, *others], self.file)
            shutil.rmtree(self.parts, ignore_errors=True)

    def _read(self) -> list[Row]:
        """The rows of finished runs, each once, from the table and from what was appended since."""
        rows = read_rows(self.file) if self.file.exists() else []
        for part in sorted(self.parts.glob("*.csv")):
            rows += read_rows(part, whole=False)
        finished = {row.run for row in rows if row.is_final}
        runs: dict[RunKey, dict[int, Row]] = {}
        for row in rows:
            if row.run in finished:
                runs.setdefault(row.run, {})[row.step] = row
        return [row for steps in runs.values() for row in steps.values()]


def measurement_settings(
    model: nn.Module,
    tasks: TaskDistribution,
    model_args: ModelArguments,
    task_args: TaskArguments,
    seed: int,
    evaluate_every: int | None = None,
) -> dict[str, Any]:
    """Returns what a row depends on beside its own columns and its optimizer, as plain JSON values."""
    datasets = [asdict(dataset) for dataset in task_args.datasets]
    names = ("num_classes", "batch_size", "batch_sizes", "evaluation_size", "augmentations")
    return {
        **asdict(model_args),
        "base_model_revision": resolved_commit(model) or model_args.base_model_revision,
        "images_and_weights": fingerprint(tasks, seed),
        "datasets": [{name: spec[name] for name in spec if name not in _WITHOUT_EFFECT} for spec in datasets],
        **{name: getattr(task_args, name) for name in names},
        "seed": seed,
        "evaluate_every": evaluate_every,
        "device": next(model.parameters()).device.type,  # each rounds in its own way, and each version
        "versions": {name: installed_version(name) for name in PACKAGES},
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
    """Returns what the manifest of a folder says of each file of rows; nothing if there is no manifest."""
    file = folder / MANIFEST_NAME
    if not file.exists():
        return {}
    try:
        sections = json.loads(file.read_text(encoding="utf-8"))
        for section in sections.values():
            _ = section["settings"].items(), section["optimizers"].items()
        return sections
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file} does not say what the rows beside it were measured with; restore it, or name another folder."
        ) from error


def _differences(old: Any, new: Any) -> list[str]:
    """What differs between two settings, each as `name was OLD, now NEW`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{name} was {json.dumps(before.get(name))}, now {json.dumps(after.get(name))}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, value


def _plain(settings: Any) -> Any:
    """Settings as they come back from JSON; what JSON does not know becomes text."""
    return json.loads(json.dumps(settings, default=str))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
