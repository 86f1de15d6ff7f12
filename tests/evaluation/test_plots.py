import math

import pytest

from hf_l3rs.evaluation import plots
from hf_l3rs.evaluation.plots import plot_learning_curves
from hf_l3rs.evaluation.store import to_csv
from tests.evaluation.rows import ROWS, row


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot_learning_curves(ROWS, tmp_path / "curves.png", "title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.fixture
def axes(tmp_path, monkeypatch):
    """Draws rows; returns the axes that can be seen."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)

    def draw(rows):
        plot_learning_curves(rows, tmp_path / "curves.png", "title")
        return [axis for axis in pyplot.gcf().axes if axis.get_visible()]

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def curve(name, steps, length):
    return [row(name, task, 1.0 + task, steps=length, step=step) for task in (0, 1) for step in steps]


def test_a_curve_starts_where_it_was_first_measured(axes):
    loss, accuracy = axes(curve("L3RS", [0, 5, 10], 10))
    assert loss.lines[0].get_xdata().tolist() == [0, 5, 10] and loss.get_xlim()[0] == 0
    (later, _) = axes(curve("L3RS", [5, 10], 10))
    assert later.lines[0].get_xdata().tolist() == [5, 10] and later.get_xlim()[0] == 0


def test_points_of_a_single_step_stand_side_by_side_with_their_errors(axes):
    """The best comes first; losses bear names."""
    worse = [row("Adam", task, 2.0 + task) for task in (0, 1)]
    loss, accuracy = axes([*worse, *curve("L3RS", [10], 10)])
    assert {text.get_text(): text.xy[0] for text in loss.texts if text.get_text()} == {"L3RS": 0, "Adam": 1}
    for axis in (loss, accuracy):
        assert sorted(float(points[0].get_xdata()[0]) for points in axis.containers) == [0.0, 1.0]
        assert axis.get_xticks().tolist() == [] and axis.get_xlabel() == "at step 10"


def test_no_more_than_a_handful_of_columns(axes):
    rows = [each for length in range(2, 16, 2) for each in curve("L3RS", [1, length], length)]
    visible = axes(rows)
    assert len(visible) == 2 * 7
    grid = visible[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (6, plots.MAX_COLUMNS)
    assert {axis.get_title() for axis in visible} - {""} == {f"runs of {length} steps" for length in range(2, 16, 2)}


@pytest.mark.parametrize("scale", [0.01, 0.2, 30.0])
@pytest.mark.parametrize("spread", [1.3, 4.0, 40.0])
def test_ticks_are_a_few_plain_numbers(axes, scale, spread):
    rows = [row("L3RS", 0, loss, steps=73, step=step) for step, loss in ((7, scale * spread), (73, scale))]
    loss, _ = axes(rows)
    low, high = loss.get_ylim()
    shown = [tick for tick in loss.yaxis.get_majorticklocs() if low <= tick <= high]
    labels = [loss.yaxis.get_major_formatter()(tick, 0) for tick in shown]
    assert 2 <= len(shown) <= 12 and [float(label) for label in labels] == pytest.approx(shown, rel=1e-5)
    assert loss.yaxis.get_minorticklocs().tolist() == []
    assert all(step == int(step) for step in loss.get_xticks())


def test_a_diverged_run_is_said_where_it_cannot_be_drawn(axes, recwarn):
    rows = [*curve("L3RS", [5, 10], 10), row("Adam", 0, 2.0, step=5), row("Adam", 0, 2.0)]
    loss, accuracy = axes([*rows, row("Adam", 1, math.inf, step=5), row("Adam", 1, math.inf)])
    assert [text.get_text() for text in loss.texts] == ["Adam: 1 diverged"]
    assert not [text for text in accuracy.texts if text.get_text()] and not recwarn.list
    assert [line.get_ydata()[-1] for line in loss.lines] == [1.5, pytest.approx(math.nan, nan_ok=True)]


def test_a_long_comparison_keeps_its_colours(axes):
    names = [f"optimizer {number}" for number in range(9)]
    loss, _ = axes([each for name in [*names, "L3RS"] for each in curve(name, [1, 2], 2)])
    assert [line.get_color() for line in loss.lines] == [*plots.MUTED, *plots.MUTED[:3], plots.HIGHLIGHT]
    assert [line.get_linestyle() for line in loss.lines] == [*["-"] * 6, *["--"] * 3, "-"]
    loss, _ = axes([each for name in ("L3RS, untrained", "L3RS") for each in curve(name, [1, 2], 2)])
    assert loss.lines[0].get_color() in plots.VARIANTS


def test_runs_of_many_passes_are_not_drawn(axes):
    loss, _ = axes([*curve("L3RS", [10], 10), row("Data limit, 8 passes", 0, 0.1)])
    assert [text.get_text() for text in loss.texts if text.get_text()] == ["L3RS"]


def test_a_picture_knows_what_it_was_drawn_from(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    assert not plots.is_picture_of(picture, to_csv(ROWS).encode())
    plot_learning_curves(ROWS, picture, "title")
    assert plots.is_picture_of(picture, to_csv(ROWS).encode())
    assert not plots.is_picture_of(picture, to_csv(ROWS[1:]).encode())
