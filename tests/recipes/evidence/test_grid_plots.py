import pytest

from hf_l3rs.evaluation.plots import HIGHLIGHT, is_picture_of
from recipes.evidence.grid_plots import grid_data, plot_grid
from tests.evaluation.rows import row


def rows(own):
    losses = {"Adam": {10: 1.0, 20: 0.5, 40: 0.25}, "L3RS": own, "L3RS, untrained": {10: 2.0}}
    return [
        row(name, task, loss * (1 + 0.1 * task), steps, rate=0.1 if name == "Adam" else None)
        for name, of_name in losses.items()
        for steps, loss in of_name.items()
        for task in range(3)
    ]


@pytest.fixture
def axes(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)

    def draw(cells, **options):
        plot_grid(cells, tmp_path / "figure3.png", "title", **options)
        assert is_picture_of(tmp_path / "figure3.png", grid_data(cells))
        return [axis for axis in pyplot.gcf().axes if axis.get_visible()]

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def test_a_panel_a_cell(axes):
    cells = {"in_domain": rows({10: 0.6, 20: 0.3, 40: 0.2}), "other_domain": rows({10: 0.5})}
    first, second = axes(cells, trained_steps=20)
    assert first.get_title() == "A. in domain" and second.get_title() == "C. other domain"
    lines = {line.get_label(): line.get_ydata() for line in first.lines}
    assert lines["best tuned baseline"] == pytest.approx([1.1, 0.55, 0.275])
    assert lines["untrained L3RS"] == pytest.approx([2.2])
    solid, dashed = (line for line in first.lines if line.get_color() == HIGHLIGHT)
    assert solid.get_xdata().tolist() == [10, 20] and solid.get_linestyle() == "-"
    assert dashed.get_xdata().tolist() == [20, 40] and dashed.get_linestyle() == "--"
