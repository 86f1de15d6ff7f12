"""
Makes the tables of the READMEs and the pictures from what recipes/results stores, and the card of that data set.

    python recipes/readme.py

What is stored belongs to the cells of recipes/configs/figure3_*.yaml: recipes/results/NAME/CELL/rows.csv and
search.csv, NAME being the L3RS's, as recipes/figure3.py and recipes/meta_evaluate.py wrote them;
recipes/results/ablations has rows.csv and summary.md as recipes/ablations.py wrote them, and
recipes/results/architecture_transfer/MODEL rows.csv and search.csv of recipes/architecture_transfer.py. Nothing is
measured, and where nothing was stored anew, nothing changes. Cards of optimizers are made by recipes/release.py; the
picture in them is drawn here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.baselines import BASELINES, RECALIBRATED, is_recalibrated
from hf_l3rs.evaluation.job import ROWS_NAME, SEARCH_NAME
from hf_l3rs.evaluation.plots import is_picture_of, plot_learning_curves
from hf_l3rs.evaluation.report import Summary, describe_loss, rivals_in, summarise
from hf_l3rs.evaluation.rows import Row, final_rows, read_rows, to_csv
from hf_l3rs.evaluation.speed_up import SpeedUp, speed_ups
from hf_l3rs.files import write_files
from hf_l3rs.hub.artifact import PICTURE_NAME
from hf_l3rs.hub.results import OPTIMIZER_NAME, describe_speed_up
from hf_l3rs.markdown import markdown_table
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.settings import OptionParser


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # recipes is not installed

from recipes.evidence.ablation import plot_ablation
from recipes.evidence.grid import SETTINGS, read_cells
from recipes.evidence.grid_plots import grid_data, plot_grid
from recipes.evidence.transfer import to_table


ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "recipes" / "results"
ABLATIONS = RESULTS / "ablations"
TRANSFER = RESULTS / "architecture_transfer"
HEADERS = ("fine-tuning", "steps", "best rival of all", "its loss", "L3RS", "L3RS / rival", "wins", "speed-up, 95 %")
HEADERS += ("recalibrated / rival", "L3RS / best tuned Adam", "speed-up on it", "L3RS / best without tuning")
ADAMS = ("Adam constant", "Adam cosine")
OWN_CELL = "in_domain"  # whose rows are the first table, before those of other settings

CARD = """
# What hf_l3rs measured

The raw rows behind the tables and pictures of hf_l3rs, a learned optimizer for fine-tuning (L3RS,
[arXiv 2408.09310](https://arxiv.org/abs/2408.09310)): one row for each evaluation of each run. A configuration is one
comparison on unseen tasks, the split `rows`, with the search for learning rates on validation tasks before it, the
split `search`:

{table}

| column | what it says |
|:--|:--|
| `optimizer` | `L3RS`, also untrained, or recalibrated (batch norm's statistics anew); a baseline; a data limit |
| `learning_rate` | what the run had; none for L3RS |
| `task` | number of the task; the same number is the same classes, initial weights and batches for all optimizers |
| `num_training_steps` | length of the run |
| `step` | steps taken at the evaluation |
| `loss`, `accuracy` | on the task's evaluation set: mean cross entropy in nats, infinite if it diverged; share right |

`trajectories.csv` of an L3RS has the step and the mixture of every layer over a run on a validation task.
"""


class Section(NamedTuple):
    """A stored comparison."""

    l3rs: str
    cell: str
    title: str
    config: L3RSConfig
    rows: list[Row]

    @property
    def folder(self) -> Path:
        return RESULTS / self.l3rs / self.cell


def stored_sections() -> list[Section]:
    """The comparisons that are stored, in the order of the configs and of their cells."""
    sections = []
    for path in sorted((ROOT / "recipes" / "configs").glob("figure3_*.yaml")):
        for name, cell in read_cells([str(path)]).items():
            l3rs = Path(cell.evaluation.l3rs)
            file = RESULTS / l3rs.name / name / ROWS_NAME
            if file.exists():
                config = L3RSArtifact.from_pretrained(ROOT / l3rs).config
                sections.append(Section(l3rs.name, name, cell.evaluation.title, config, read_rows(file)))
    return sections


def table(sections: Sequence[Section]) -> str:
    """A table of README: a line for each comparison and length of run."""
    lines = []
    for section in sections:
        summaries = summarise(section.rows, rivals_in(section.rows))
        ours = [each for each in summaries if each.optimizer == OPTIMIZER_NAME]
        on_adam = speed_ups(final_rows(section.rows), OPTIMIZER_NAME, ADAMS)
        for index, summary in enumerate(ours):
            beside = [each for each in summaries if each.num_training_steps == summary.num_training_steps]
            lines.append(_line(section.title if index == 0 else "", summary, beside, on_adam))
    return markdown_table(HEADERS, lines, ("left", "right", "left", *["right"] * (len(HEADERS) - 3)))


def _line(title: str, ours: Summary, beside: Sequence[Summary], on_adam: Mapping[int, SpeedUp]) -> list[str]:
    (rival,) = (each for each in beside if each.is_reference)
    recalibrated = [each for each in beside if each.optimizer == RECALIBRATED]
    is_alike = rival.optimizer in BASELINES and is_recalibrated(BASELINES[rival.optimizer])
    return [
        title,
        str(ours.num_training_steps),
        rival.optimizer,
        _measured(rival),
        f"**{_measured(ours)}**" if ours.loss < rival.loss else _measured(ours),
        f"{ours.ratio:.2f}",
        f"{ours.wins} of {ours.num_tasks}",
        _speed_up(ours.speed_up),
        f"{recalibrated[0].ratio:.2f}" if recalibrated and is_alike else "",
        _share(ours, [each for each in beside if each.optimizer in ADAMS]),
        _speed_up(on_adam.get(ours.num_training_steps)),
        _share(ours, [each for each in beside if each.is_tuning_free]),
    ]


def _speed_up(speed_up: SpeedUp | None) -> str:
    return "" if speed_up is None else describe_speed_up(**asdict(speed_up))


def _share(ours: Summary, rivals: Sequence[Summary]) -> str:
    """What the loss is of the best of some rivals'."""
    return f"{ours.loss / min(each.loss for each in rivals):.2f}" if rivals else ""


def _measured(summary: Summary) -> str:
    return f"{describe_loss(summary)}, {100 * summary.accuracy:.1f} %"


def with_tables(text: str, sections: Sequence[Section]) -> str:
    """README with its tables made anew; what stands outside of the markers stays."""
    for name, own in (("results", True), ("settings", False)):
        chosen = [section for section in sections if (section.cell == OWN_CELL) == own]
        text = with_text(text, name, table(chosen)) if chosen else text
    return text


def transfer_rows() -> dict[str, list[Row]]:
    """What is stored of models that the universal start never saw, by model."""
    return {path.parent.name: read_rows(path) for path in sorted(TRANSFER.glob(f"*/{ROWS_NAME}"))}


def with_recipes(text: str) -> str:
    """README of the recipes with the tables of variations and of models never seen, where they are stored."""
    ablations, transfer = ABLATIONS / "summary.md", transfer_rows()
    if ablations.exists():
        text = with_text(text, "ablations", ablations.read_text(encoding="utf-8").rstrip())
    return with_text(text, "transfer", to_table(transfer)) if transfer else text


def with_text(text: str, name: str, content: str) -> str:
    """A README with other content between two markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise DataError(f"A README has no place for the table {name}; restore the lines {begin} and {end}.")
    return f"{before}{begin}\n{content}\n{end}{after}"


def dataset_card(sections: Sequence[Section]) -> str:
    """The card of recipes/results as a data set, by which `datasets.load_dataset` finds its files."""
    names = [f"{section.l3rs}.{section.cell}" for section in sections]
    configs = [_config(name, section.folder) for name, section in zip(names, sections)]
    configs[0]["default"] = True
    metadata = {
        "license": "apache-2.0",
        "pretty_name": "What hf_l3rs measured",
        "tags": ["learned-optimizer", "l3rs", "benchmark"],
        "configs": configs,
    }
    lines = [(f"`{name}`", SETTINGS[each.cell], each.title) for name, each in zip(names, sections)]
    for model in transfer_rows():
        name = f"{TRANSFER.name}.{model}"
        configs.append(_config(name, TRANSFER / model))
        lines.append((f"`{name}`", "other architecture", f"{model}, by the universal start and warm starts from it"))
    if (ABLATIONS / ROWS_NAME).exists():
        configs.append(_config(ABLATIONS.name, ABLATIONS))
        lines.append(
            (f"`{ABLATIONS.name}`", "in domain, validation tasks", "what each part of the ResNet's L3RS brings")
        )
    body = CARD.format(table=markdown_table(("configuration", "setting", "fine-tuning"), lines))
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n{body}"


def _config(name: str, folder: Path) -> dict[str, Any]:
    """A configuration of the data set: the files of rows in a folder."""
    files = [folder / file for file in (ROWS_NAME, SEARCH_NAME) if (folder / file).exists()]
    return {
        "config_name": name,
        "data_files": [{"split": file.stem, "path": file.relative_to(RESULTS).as_posix()} for file in files],
    }


def draw(sections: Sequence[Section]) -> list[Path]:
    """Draws the pictures that are not of the stored rows yet; returns them."""
    drawn = []
    for name in dict.fromkeys(section.l3rs for section in sections):
        own = {section.cell: section for section in sections if section.l3rs == name}
        first, rows = next(iter(own.values())), {cell: section.rows for cell, section in own.items()}
        curves, grid = RESULTS / name / "curves.png", RESULTS / name / "figure3.png"
        if not is_picture_of(curves, to_csv(first.rows).encode()):
            plot_learning_curves(first.rows, curves, first.title)
            drawn.append(curves)
        write_files(ROOT / "model_cards" / name, {PICTURE_NAME: curves.read_bytes()})
        if not is_picture_of(grid, grid_data(rows)):
            plot_grid(rows, grid, name, first.config.num_training_steps)
            drawn.append(grid)
    if (ABLATIONS / ROWS_NAME).exists():
        variations, picture = read_rows(ABLATIONS / ROWS_NAME), ABLATIONS / "ablations.png"
        if not is_picture_of(picture, to_csv(variations).encode()):
            plot_ablation(variations, picture)
            drawn.append(picture)
    return drawn


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    sections, recipes = stored_sections(), ROOT / "recipes"
    for folder, with_it in ((ROOT, partial(with_tables, sections=sections)), (recipes, with_recipes)):
        text = with_it((folder / "README.md").read_text(encoding="utf-8"))
        write_files(folder, {"README.md": text.encode()})
    write_files(RESULTS, {"README.md": dataset_card(sections).encode()})
    for path in draw(sections):
        sys.stdout.write(f"drew {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    run_script(main)
