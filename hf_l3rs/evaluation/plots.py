"""Pictures of what a benchmark measured and of what an L3RS does. Needs matplotlib: `pip install hf_l3rs[plots]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_l3rs.evaluation.report import mean_and_stderr


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hf_l3rs.evaluation.benchmark import Row

# L3RS stands out; baselines keep to muted colours that differ in lightness too.
HIGHLIGHT = "#c1121f"
MUTED = ("#1d3557", "#457b9d", "#8d99ae", "#588157", "#b08968", "#6d597a")


def plot_learning_curves(rows: Sequence[Row], path: str | Path, title: str, highlight: str = "L3RS") -> None:
    """
    Draws loss and accuracy over steps, one line for each optimizer, one column for each length of run.

    Args:
        rows (`Sequence[Row]`): Of one comparison.
        path (`str` or `Path`): The PNG to write.
        title (`str`): Above the picture.
        highlight (`str`, *optional*, defaults to `"L3RS"`): The optimizer that stands out.
    """
    plt = _pyplot()
    horizons = sorted({row.num_training_steps for row in rows})
    figure, axes = plt.subplots(2, len(horizons), figsize=(3.4 * len(horizons), 5.6), squeeze=False, sharey="row")
    for column, horizon in enumerate(horizons):
        chosen = [row for row in rows if row.num_training_steps == horizon]
        _draw_curves(axes[0][column], chosen, "loss", highlight)
        _draw_curves(axes[1][column], chosen, "accuracy", highlight)
        axes[0][column].set_title(f"runs of {horizon} steps", fontsize=10)
        axes[0][column].set_yscale("log")
        axes[1][column].set_xlabel("step")
    axes[0][0].set_ylabel("evaluation loss")
    axes[1][0].set_ylabel("accuracy")
    axes[0][-1].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    _save(figure, path)


def _draw_curves(axis: Axes, rows: Sequence[Row], metric: str, highlight: str) -> None:
    """Means over tasks with a band of one standard error."""
    names = list(dict.fromkeys(row.optimizer for row in rows))
    colors = dict(zip([name for name in names if name != highlight], MUTED * len(names)))
    for name in names:
        by_step: dict[int, list[float]] = {}
        for row in rows:
            if row.optimizer == name:
                by_step.setdefault(row.step, []).append(getattr(row, metric))
        steps = sorted(by_step)
        means, errors = zip(*(mean_and_stderr(by_step[step]) for step in steps))
        color = colors.get(name, HIGHLIGHT)
        axis.plot(
            steps, means, "o-", label=name, color=color, linewidth=2.2 if name == highlight else 1.3, markersize=3
        )
        low, high = ([mean + sign * error for mean, error in zip(means, errors)] for sign in (-1, 1))
        axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("Pictures need matplotlib; install it with `pip install hf_l3rs[plots]`.") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.png")
    figure.savefig(partial, dpi=150)
    partial.replace(path)
    _pyplot().close(figure)
