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


def test_points_of_a_single_step_stand_side_by_side_with_their_errors(axes):
    """The best comes first; losses bear names; runs of many passes are not drawn."""
    worse = [row("Adam", task, 2.0 + task) for task in (0, 1)]
    loss, accuracy = axes([*worse, *curve("L3RS", [10], 10), row("Data limit, 8 passes", 0, 0.1)])
    assert {text.get_text(): text.xy[0] for text in loss.texts if text.get_text()} == {"L3RS": 0, "Adam": 1}
    for axis in (loss, accuracy):
        assert sorted(float(points[0].get_xdata()[0]) for points in axis.containers) == [0.0, 1.0]
        assert axis.get_xticks().tolist() == [] and axis.get_xlabel() == "at step 10"


def test_no_more_than_a_handful_of_columns(axes):
    """A curve starts where it was first measured, and its axis at 0."""
    visible = axes([each for length in range(2, 16, 2) for each in curve("L3RS", [1, length], length)])
    assert len(visible) == 2 * 7
    grid = visible[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (6, plots.MAX_COLUMNS)
    assert {axis.get_title() for axis in visible} - {""} == {f"runs of {length} steps" for length in range(2, 16, 2)}
    assert {axis.lines[0].get_xdata()[0] for axis in visible} == {1} and visible[0].get_xlim()[0] == 0


@pytest.mark.parametrize("scale", [0.01, 0.2, 30.0])
@pytest.mark.parametrize("spread", [1.3, 4.0, 40.0])
def test_ticks_of_losses_are_a_few_plain_numbers(scale, spread):
    figure, axis = pyplot.subplots()
    axis.plot([7, 73], [scale * spread, scale])
    plots.scale_loss(axis)
    low, high = axis.get_ylim()
    shown = [tick for tick in axis.yaxis.get_majorticklocs() if low <= tick <= high]
    labels = [axis.yaxis.get_major_formatter()(tick, 0) for tick in shown]
    assert 2 <= len(shown) <= 12 and [float(label) for label in labels] == pytest.approx(shown, rel=1e-5)
    assert axis.yaxis.get_minorticklocs().tolist() == []
    pyplot.close(figure)


def test_a_diverged_run_is_said_where_it_cannot_be_drawn(axes, recwarn):
    rows = [*curve("L3RS", [5, 10], 10), row("Adam", 0, 2.0, step=5), row("Adam", 0, 2.0)]
    loss, accuracy = axes([*rows, row("Adam", 1, math.inf, step=5), row("Adam", 1, math.inf)])
    assert [text.get_text() for text in loss.texts] == ["Adam: 1 diverged"]
    assert not [text for text in accuracy.texts if text.get_text()] and not recwarn.list
    assert [line.get_ydata()[-1] for line in loss.lines] == [1.5, pytest.approx(math.nan, nan_ok=True)]


def test_a_long_comparison_keeps_its_colours(axes):
    names = [*(f"optimizer {number}" for number in range(9)), "L3RS", "L3RS, untrained"]
    loss, _ = axes([each for name in names for each in curve(name, [1, 2], 2)])
    colours = [*plots.MUTED, *plots.MUTED[:3], plots.HIGHLIGHT, plots.VARIANTS[0]]
    assert [line.get_color() for line in loss.lines] == colours
    assert [line.get_linestyle() for line in loss.lines] == [*["-"] * 6, *["--"] * 3, "-", "-"]


def test_a_picture_knows_what_it_was_drawn_from(tmp_path):
    picture = tmp_path / "curves.png"
    assert not plots.is_picture_of(picture, to_csv(ROWS).encode())
    plot_learning_curves(ROWS, picture, "title")
    assert plots.is_picture_of(picture, to_csv(ROWS).encode())
    assert not plots.is_picture_of(picture, to_csv(ROWS[1:]).encode())
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
