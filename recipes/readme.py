"""
Makes the tables of README.md and of recipes/results/README.md, and the pictures, from the rows that recipes/results
stores. Nothing is measured. Where nothing was stored anew, nothing changes.

    python -m recipes.readme

A table stands between two lines, <!-- NAME:begin --> and <!-- NAME:end -->; all other text is written by hand.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from hf_l3rs import L3RSArtifact
from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.plots import HIGHLIGHT, MUTED, is_picture_of, plot_learning_curves, pyplot, save_figure
from hf_l3rs.evaluation.report import Paired, best_baseline, compare_paired, losses_by_task
from hf_l3rs.evaluation.store import Row, final_rows, to_csv
from hf_l3rs.files import write_files
from hf_l3rs.hub.artifact import PICTURE_NAME
from hf_l3rs.hub.results import OPTIMIZER_NAME, UNTRAINED
from hf_l3rs.markdown import markdown_table
from hf_l3rs.settings import OptionParser
from recipes.ablations import variations_table
from recipes.evidence.experiment import SETTINGS
from recipes.evidence.grid_plots import grid_data, plot_grid
from recipes.evidence.stored import RESULTS, read_stored, rivals_in


ROOT = RESULTS.parents[1]
MODEL_CARDS = ROOT / "model_cards"
OWN = "in_domain"
# What somebody gets who hands no optimizer to the Trainer.
DEFAULT = "Trainer's default"
# The lines of README's table: what is fine-tuned, and the L3RS that was made for it.
HEADLINES = {
    "ResNet, 0.08 M parameters": "l3rs-resnet-tiny-fashion",
    "ViT, 0.2 M": "l3rs-vit-tiny-fashion",
    "LoRA on this ViT": "l3rs-vit-tiny-fashion-lora",
    "MobileNetV2, ImageNet, 2.2 M": "l3rs-mobilenet-v2-fashion",
    "its last two blocks and head": "l3rs-mobilenet-v2-fashion-last",
    "its head": "l3rs-mobilenet-v2-fashion-head",
    "EfficientNet-Lite0, ImageNet, 3.4 M": "l3rs-efficientnet-lite0-fashion",
}
HEADLINE_STEPS = 20
# The L3RS of README's picture.
FRONT = "l3rs-resnet-tiny-fashion"
# Pictures of the paper's figure 3, for those that were measured in several settings.
WITH_GRID = ("l3rs-resnet-tiny-fashion", "l3rs-vit-tiny-fashion", "l3rs-universal-start")
WARM_START = "warm_start_"
ABLATIONS = "ablations"


class Comparison(NamedTuple):
    """L3RS beside the best rival of runs of one length, on the same tasks."""

    rival: str
    losses: pd.DataFrame  # a row for each task, a column for each optimizer

    @property
    def paired(self) -> Paired:
        """L3RS beside the rival, task by task."""
        return compare_paired(self.losses[OPTIMIZER_NAME], self.losses[self.rival])

    @property
    def ratio(self) -> str:
        """The mean loss of L3RS over the rival's, with its standard error over tasks."""
        own, other = self.losses[OPTIMIZER_NAME], self.losses[self.rival]
        ratio = own.mean() / other.mean()
        return f"{ratio:.2f} ± {(own - ratio * other).sem() / other.mean():.2f}"

    @property
    def wins(self) -> str:
        """The tasks on which L3RS has less loss."""
        return f"{self.paired.wins} of {self.paired.num_tasks}"

    def loss(self, optimizer: str) -> str:
        """The mean loss with its standard error over tasks; a dash if it was not measured."""
        return mean(self.losses[optimizer]) if optimizer in self.losses else "–"

    @property
    def own_loss(self) -> str:
        """That of L3RS, bold where it is ahead."""
        return f"**{self.loss(OPTIMIZER_NAME)}**" if self.paired.verdict == "ahead" else self.loss(OPTIMIZER_NAME)


def mean(losses: pd.Series) -> str:
    """A mean with its standard error; in words if a run diverged."""
    diverged = (losses == math.inf).sum()
    return f"diverged on {diverged} of {len(losses)}" if diverged else f"{losses.mean():.3f} ± {losses.sem():.3f}"


def comparisons(rows: Sequence[Row]) -> dict[int, Comparison]:
    """Returns a comparison for each length of run."""
    finals, rivals = final_rows(rows), rivals_in(rows)
    return {
        int(steps): Comparison(best_baseline(of_steps, rivals), losses_by_task(of_steps))
        for steps, of_steps in finals.groupby("num_training_steps")
    }


def results_table(table: Mapping[str, Sequence[Row]]) -> str:
    """Returns a line for each setting and length of run of one L3RS."""
    lines = []
    for setting in (name for name in table if name in SETTINGS):
        for index, (steps, each) in enumerate(comparisons(table[setting]).items()):
            name = SETTINGS[setting] if index == 0 else ""
            rival = f"{each.rival}, {each.loss(each.rival)}"
            ratio = f"{each.ratio}, {each.paired.verdict}"
            lines.append((name, steps, rival, each.own_loss, ratio, each.wins, each.loss(UNTRAINED)))
    headers = ("setting", "steps", "best rival", "L3RS", "L3RS / rival", "wins", "untrained")
    return markdown_table(headers, lines, ("left", "right", "left", *["right"] * 4))


def headline_table() -> str:
    """Returns README's table."""
    lines = []
    for title, name in HEADLINES.items():
        table = read_stored(name)
        each = comparisons(table[OWN])[HEADLINE_STEPS]
        beside = [comparisons(rows).get(HEADLINE_STEPS) for setting, rows in table.items() if setting in SETTINGS]
        default = next((own.loss(DEFAULT) for own in beside if own is not None and DEFAULT in own.losses), "–")
        lines.append((title, default, f"{each.loss(each.rival)} ({each.rival})", each.own_loss, each.wins))
    headers = ("model", "AdamW, the Trainer's default", "best rival", "L3RS", "wins")
    text = markdown_table(headers, lines, ("left", *["right"] * 4))
    return text.replace(" ± ", "\u00a0±\u00a0").replace(" of 16", "\u00a0of\u00a016")  # a number is on one line


def rivals_table(rows: Sequence[Row], steps: int) -> str:
    """Returns every optimizer of a setting, the best first."""
    each = comparisons(rows)[steps]
    names = sorted(
        (name for name in each.losses if name in (OPTIMIZER_NAME, *rivals_in(rows))), key=each.losses.mean().get
    )
    return markdown_table(("optimizer", "loss"), [(name, each.loss(name)) for name in names], ("left", "right"))


def warm_starts_table(table: Mapping[str, Sequence[Row]]) -> str:
    """Returns a line for each model that the universal start never saw, untouched and after warm starts."""
    lines, variants = [], ("untouched", "200 inner steps", "1000 inner steps")
    for setting in (name for name in table if name.startswith(WARM_START)):
        finals = final_rows(table[setting])
        for steps, own in finals.groupby("num_training_steps"):
            losses = losses_by_task(own)
            lines.append(
                (
                    SETTINGS[setting.removeprefix(WARM_START)].split(", ")[1],
                    steps,
                    *(mean(losses[name]) for name in variants),
                )
            )
    return markdown_table(("model", "steps", *variants), lines, ("left", *["right"] * 4))


def with_table(text: str, name: str, table: str) -> str:
    """
    Returns a text with another table between its two markers.

    Raises:
        DataError: If a marker is absent.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise DataError(f"There is no place for the table {name}; restore the lines {begin} and {end}.")
    return f"{before}{begin}\n{table}\n{end}{after}"


def stored_names() -> list[str]:
    """The L3RSs that have stored rows."""
    return sorted(path.name for path in RESULTS.iterdir() if path.is_dir())


def results_page(text: str) -> str:
    """Returns the results page with its tables made anew."""
    for name in stored_names():
        table = read_stored(name)
        text = with_table(text, name, results_table(table))
        if ABLATIONS in table:
            text = with_table(text, ABLATIONS, variations_table(table[ABLATIONS]))
        if any(setting.startswith(WARM_START) for setting in table):
            text = with_table(text, "warm starts", warm_starts_table(table))
    rivals = read_stored("l3rs-resnet-tiny-fashion")["in_domain_rivals"]
    return with_table(text, "rivals", rivals_table(rivals, HEADLINE_STEPS))


def draw_front(path: Path) -> bool:
    """Draws README's picture, L3RS and the best tuned rival by the length of the run; whether it was of other rows."""
    rows = read_stored(FRONT)[OWN]
    found = comparisons(rows)
    (rival,) = {each.rival for each in found.values()}
    data = to_csv([row for row in rows if row.optimizer in (OPTIMIZER_NAME, rival)]).encode()
    if is_picture_of(path, data):
        return False
    figure, axis = pyplot().subplots(figsize=(7.2, 3.2), layout="constrained")
    for name, label, color in (
        (rival, f"{rival}, its rate searched for each length", MUTED[0]),
        (OPTIMIZER_NAME, "L3RS, nothing to search", HIGHLIGHT),
    ):
        losses = [each.losses[name] for each in found.values()]
        errors = [each.sem() for each in losses]
        axis.errorbar(list(found), [each.mean() for each in losses], errors, label=label, color=color, capsize=3)
    axis.set(xscale="log", yscale="log", xlabel="steps of the fine-tuning run", ylabel="loss on test images")
    for ticks, values in ((axis.set_xticks, list(found)), (axis.set_yticks, [0.15, 0.2, 0.25, 0.3])):
        ticks(values, map(str, values))
        ticks([], minor=True)
    axis.legend(frameon=False)
    save_figure(figure, path, data, dpi=110)
    return True


def draw() -> list[Path]:
    """Draws the pictures that are not of the stored rows yet, and returns them."""
    front = RESULTS / "readme.png"
    drawn = [front] if draw_front(front) else []
    for name in stored_names():
        table = {setting: rows for setting, rows in read_stored(name).items() if setting in SETTINGS}
        first = next(iter(table.values()))
        curves, grid = MODEL_CARDS / name / PICTURE_NAME, RESULTS / name / "figure3.png"
        if not is_picture_of(curves, to_csv(first).encode()):
            plot_learning_curves(first, curves, name)
            drawn.append(curves)
        if name in WITH_GRID and not is_picture_of(grid, grid_data(table)):
            steps = L3RSArtifact.from_pretrained(name).config.num_training_steps
            plot_grid(table, grid, name, steps)
            drawn.append(grid)
    return drawn


def main(argv: list[str] | None = None) -> None:
    OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    readme, page = ROOT / "README.md", RESULTS / "README.md"
    text = with_table(readme.read_text(encoding="utf-8"), "results", headline_table())
    write_files(ROOT, {readme.name: text.encode()})
    write_files(RESULTS, {page.name: results_page(page.read_text(encoding="utf-8")).encode()})
    for path in draw():
        sys.stdout.write(f"drew {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    run_script(main)
