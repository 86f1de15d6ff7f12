"""The picture of a run: validation loss over generations. Needs `pip install hf_l3rs[plots]`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hf_l3rs.errors import DataError, reason
from hf_l3rs.evaluation.plots import HIGHLIGHT, MUTED, pyplot, save_figure, scale_loss


CURVE_NAME = "curve.png"
_REFERENCE = "validation_loss_"


def draw_curve(metrics_file: str | Path, path: str | Path, title: str | None = None) -> bool:
    """
    Draws the validation loss of a run, with a line across for each reference.

    Args:
        metrics_file (`str` or `Path`): The run's `metrics.jsonl`.
        path (`str` or `Path`): The PNG to write.
        title (`str`, *optional*): Above the picture.

    Returns:
        `bool`: Whether there was anything to draw: nothing is written where no validation gave a number.

    Raises:
        DataError: If the file does not hold a run's metrics.
    """
    data = Path(metrics_file).read_bytes()
    try:
        validated = _validations(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = "a generation has no number" if isinstance(error, KeyError) else reason(error)
        raise DataError(
            f"{metrics_file} does not hold a generation's metrics on every line ({why}); give the output folder of a "
            "meta-training."
        ) from error
    if not validated:
        return False
    references = {
        name.removeprefix(_REFERENCE): value
        for name, value in validated[-1].items()
        if name.startswith(_REFERENCE) and value is not None
    }
    plt = pyplot()
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    generations = [line["generation"] for line in validated]
    axis.plot(generations, [line["validation_loss"] for line in validated], "o-", color=HIGHLIGHT, label="L3RS")
    for index, (name, loss) in enumerate(references.items()):
        axis.axhline(loss, color=MUTED[index % len(MUTED)], linewidth=1.3, label=_label(name))
    if 0 < min(loss for loss in axis.get_ylim()) < math.inf:
        scale_loss(axis)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_xlabel("generation")
    axis.set_ylabel("loss on the validation tasks")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    if title:
        axis.set_title(title, fontsize=11)
    save_figure(figure, path, data, dpi=110)
    return True


def _validations(data: bytes) -> list[dict[str, Any]]:
    """The metrics of generations that were validated; half a last line, of a run that goes on, is none."""
    found = []
    lines = data.splitlines()
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
        except ValueError:
            if number == len(lines) and not data.endswith(b"\n"):
                break
            raise
        if line.get("validation_loss") is not None:
            found.append(
                {**line, "generation": int(line["generation"]), "validation_loss": float(line["validation_loss"])}
            )
    return found


def _label(name: str) -> str:
    return "untrained L3RS" if name == "untrained" else f"{name}, tuned"
