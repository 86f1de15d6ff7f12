import pytest

from hf_l3rs.evaluation.plots import is_picture_of
from recipes.evidence.trajectories import to_csv
from recipes.evidence.trajectory_plots import plot_trajectories
from tests.recipes.evidence.test_behaviour import SIZES, table


def test_steps_and_shares_of_every_layer_are_drawn(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    decisions = table(SIZES, dict.fromkeys(SIZES, lambda t: 0.5))
    plot_trajectories(decisions, tmp_path / "trajectories.png", "title")
    axes = [axis for axis in pyplot.gcf().axes if axis.get_visible() and axis.lines]
    assert [axis.get_title() for axis in axes] == ["head weights", "norm biases", "", ""]
    assert [len(axis.lines) for axis in axes] == [2] * 4 and axes[0].get_ylabel() == "step / base step"
    assert axes[0].lines[1].get_ydata().max() == 6.0 and axes[2].get_ylabel() == "share of adam"
    assert axes[0].lines[0].get_color() != axes[0].lines[1].get_color()
    monkeypatch.undo()
    pyplot.close("all")
    assert is_picture_of(tmp_path / "trajectories.png", to_csv(decisions))
    assert not is_picture_of(tmp_path / "trajectories.png", to_csv(decisions.iloc[1:]))


@pytest.mark.parametrize("step", [1.0, 0.05])
def test_ticks_are_plain_numbers_also_where_steps_hardly_differ(step, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    decisions = table(dict.fromkeys(SIZES, lambda t: step), dict.fromkeys(SIZES, lambda t: 0.5))
    plot_trajectories(decisions, tmp_path / "trajectories.png", "title")
    axis = pyplot.gcf().axes[0]
    labels = [label.get_text() for label in (*axis.get_yticklabels(), *axis.get_yticklabels(minor=True))]
    assert any(labels) and not any("10^" in label for label in labels)
    monkeypatch.undo()
    pyplot.close("all")
