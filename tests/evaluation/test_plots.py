"""Pictures show means and errors of what can be drawn, and say what cannot."""

import math

import pytest

from hf_l3rs.evaluation import plots
from hf_l3rs.evaluation.plots import plot_learning_curves
from hf_l3rs.evaluation.store import to_csv
from tests.evaluation.rows import ROWS, row


pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def axes(tmp_path, monkeypatch):
    """Draws rows; returns the axes that can be seen."""
    monkeypatch.setattr(pyplot, "close", lambda figure: None)

    def draw(rows):
        plot_learning_curves(rows, tmp_path / "curves.png", "title")
        return [axis for axis in pyplot.gcf().axes if axis.get_visible()]

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def curve(name, steps, length):
    return [row(name, task, 1.0 + task, steps=length, step=step) for task in (0, 1) for step in steps]


def test_a_diverged_run_is_said_where_it_cannot_be_drawn(axes, recwarn):
    rows = [*curve("L3RS", [5, 10], 10), row("Adam", 0, 2.0, step=5), row("Adam", 0, 2.0)]
    loss, accuracy = axes([*rows, row("Adam", 1, math.inf, step=5), row("Adam", 1, math.inf)])
    assert [text.get_text() for text in loss.texts] == ["Adam: 1 diverged"]
    assert not [text for text in accuracy.texts if text.get_text()] and not recwarn.list
    assert [line.get_ydata()[-1] for line in loss.lines] == [1.5, pytest.approx(math.nan, nan_ok=True)]


def test_a_picture_knows_what_it_was_drawn_from(tmp_path):
    picture = tmp_path / "curves.png"
    assert not plots.is_picture_of(picture, to_csv(ROWS).encode())
    plot_learning_curves(ROWS, picture, "title")
    assert plots.is_picture_of(picture, to_csv(ROWS).encode())
    assert not plots.is_picture_of(picture, to_csv(ROWS[1:]).encode())
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
