"""The tables and pictures are what the stored rows give: made anew, nothing changes."""

import pytest

from hf_l3rs.errors import DataError
from hf_l3rs.evaluation.job import ROWS_NAME
from hf_l3rs.evaluation.plots import HIGHLIGHT, is_picture_of
from hf_l3rs.evaluation.store import Row, to_csv, write_rows
from recipes import readme
from recipes.evidence import stored
from recipes.evidence.grid_plots import grid_data, plot_grid
from tests.evaluation.rows import row


def rows_of(*losses, name="L3RS"):
    return [Row(name, None, task, 20, 20, loss, 0.5) for task, loss in enumerate(losses)]


def test_the_pages_have_the_tables_of_the_stored_rows():
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.with_table(text, "results", readme.headline_table()) == text, "run `make readme`"
    page = (readme.RESULTS / "README.md").read_text(encoding="utf-8")
    assert readme.results_page(page) == page, "run `make readme`"


def test_pictures_are_of_the_stored_rows():
    assert {*readme.WITH_GRID, *readme.HEADLINES.values()} <= set(readme.stored_names())
    for name in readme.stored_names():
        table = {setting: rows for setting, rows in stored.read_stored(name).items() if setting in readme.SETTINGS}
        curves = readme.MODEL_CARDS / name / readme.PICTURE_NAME
        assert is_picture_of(curves, to_csv(next(iter(table.values()))).encode()), "run `make readme`"
        if name in readme.WITH_GRID:
            assert is_picture_of(readme.RESULTS / name / "figure3.png", grid_data(table)), "run `make readme`"


@pytest.mark.parametrize("name", readme.stored_names())
def test_stored_rows_are_written_again_to_the_same_bytes(name):
    table = stored.read_stored(name)
    assert stored.to_stored(table) == (stored.RESULTS / name / ROWS_NAME).read_text(encoding="utf-8")


def test_a_setting_is_stored_in_place_of_what_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "RESULTS", tmp_path / "results")
    first, second = rows_of(0.5, 0.25), rows_of(0.125)
    write_rows(first, tmp_path / "rows.csv")
    stored.store("new", "in_domain", tmp_path)
    stored.store("new", "other_domain", tmp_path)
    write_rows(second, tmp_path / "rows.csv")
    stored.store("new", "in_domain", tmp_path)
    assert stored.read_stored("new") == {"in_domain": second, "other_domain": first}
    (tmp_path / "results/new/rows.csv").write_bytes((tmp_path / "rows.csv").read_bytes())
    with pytest.raises(DataError, match="no column setting"):
        stored.read_stored("new")


def grid_rows(own):
    losses = {"Adam": {10: 1.0, 20: 0.5, 40: 0.25}, "L3RS": own, "L3RS, untrained": {10: 2.0}}
    return [
        row(name, task, loss * (1 + 0.1 * task), steps, rate=0.1 if name == "Adam" else None)
        for name, of_name in losses.items()
        for steps, loss in of_name.items()
        for task in range(3)
    ]


def test_a_panel_a_cell(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    cells = {"in_domain": grid_rows({10: 0.6, 20: 0.3, 40: 0.2}), "other_domain": grid_rows({10: 0.5})}
    plot_grid(cells, tmp_path / "figure3.png", "title", trained_steps=20)
    assert is_picture_of(tmp_path / "figure3.png", grid_data(cells))
    first, second = (axis for axis in pyplot.gcf().axes if axis.get_visible())
    monkeypatch.undo()
    pyplot.close("all")
    assert first.get_title() == "A. in domain" and second.get_title() == "C. other domain"
    lines = {line.get_label(): line.get_ydata() for line in first.lines}
    assert lines["best tuned baseline"] == pytest.approx([1.1, 0.55, 0.275])
    assert lines["untrained L3RS"] == pytest.approx([2.2])
    solid, dashed = (line for line in first.lines if line.get_color() == HIGHLIGHT)
    assert solid.get_xdata().tolist() == [10, 20] and dashed.get_xdata().tolist() == [20, 40]
