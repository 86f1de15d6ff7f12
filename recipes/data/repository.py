"""Writes a rendered image data set as a repository: one parquet file a split, and a card."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from PIL import Image

from hf_l3rs.files import write_files


SEED = 0

CARD = """\
---
license: {licence}
pretty_name: {title}, split for meta-training
task_categories:
- image-classification
configs:
- config_name: default
  data_files:
{data_files}
dataset_info:
  download_size: {num_bytes}
---

# {title}, split for meta-training

{text}

| split | classes | {column} | images a class | images | names of the classes |
|---|---|---|---|---|---|
{table}

The column `{column}` says what an image was rendered from.
"""


class Split(NamedTuple):
    """
    What a split is rendered from.

    Args:
        classes (`dict[int, dict[str, Sequence]]`): Label -> name of a source -> one or more variants of it.
        count (`int`): Images a class. The sources take turns.
    """

    classes: dict[int, dict[str, Sequence[Any]]]
    count: int


def write_repository(
    target: Path,
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    render: Callable[[Any, np.random.Generator], np.ndarray],
    *,
    column: str,
    **about: str,
) -> None:
    """
    Renders and writes all splits. Each image is a function of its split, class and number within the class.

    Args:
        target (`Path`): The folder.
        splits (`Mapping[str, Split]`): By name, in an order that the images depend on.
        class_names (`Sequence[str]`): What the labels stand for.
        render (`Callable`): Makes an image, `(height, width, 3)` `uint8`, of a source's variant.
        column (`str`): Name of the column that has the names of the sources.
        about: `licence`, `title` and `text` of the card.
    """
    datasets.disable_progress_bars()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
        | {column: datasets.Value("string")}
    )
    table, num_bytes = [], 0
    for number, (name, split) in enumerate(splits.items()):
        rows = _render(number, split, column, render)
        buffer = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
        write_files(target, {f"{name}.parquet": buffer.getvalue()})
        num_bytes += buffer.tell()
        names = [class_names[label] for label in split.classes]
        sources = len({source for sources in split.classes.values() for source in sources})
        described = ", ".join(names) if len(names) <= 26 else f"{names[0]} … {names[-1]}"
        sizes = " | ".join(f"{each:,}" for each in (len(names), sources, split.count, len(rows["label"])))
        table.append(f"| `{name}` | {sizes} | {described} |")
    card = CARD.format(
        **about,
        column=column,
        data_files="\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in splits),
        num_bytes=num_bytes,  # `datasets` looks here whether what it has prepared before still holds
        table="\n".join(table),
    )
    write_files(target, {"README.md": card.encode()})


def _render(number: int, split: Split, column: str, render: Callable) -> dict[str, list]:
    """A split's columns, in random order."""
    rows = []
    for label, sources in split.classes.items():
        rng = np.random.Generator(np.random.PCG64([SEED, number, label]))
        for index in range(split.count):
            name = list(sources)[index % len(sources)]
            variants = sources[name]
            pixels = render(variants[index // len(sources) % len(variants)], rng)
            rows.append((Image.fromarray(pixels), label, name))
    order = np.random.Generator(np.random.PCG64([SEED, number])).permutation(len(rows))
    images, labels, names = zip(*(rows[index] for index in order))
    return {"image": list(images), "label": list(labels), column: list(names)}
