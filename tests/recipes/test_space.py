"""The app without a browser: what it shows, and that what is not possible is said in a sentence."""

import pytest
import yaml

from hf_l3rs.errors import ArtifactError, BindingError, ConfigError, StorageError
from recipes.space import bundle
from recipes.space.runs import look, race


RESNET, VIT, ANY = "l3rs-resnet-tiny-fashion", "l3rs-vit-tiny-fashion", "l3rs-universal-start"


def test_a_race_is_paired_and_grows_by_a_curve_a_contender():
    seen = list(race(RESNET, "ResNet", 6, 2))
    assert [curves.optimizer.nunique() for curves, _ in seen] == [1, 2, 3]
    curves, table = seen[-1]
    assert curves[curves.step == 0].loss.nunique() == 1  # the same start for all
    assert set(curves.optimizer) == {"L3RS", "Adam at 1e-3", "Adam cosine, 0.01"}
    ends = curves[curves.step == 6].sort_values("loss")
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] == list(ends.optimizer)


@pytest.mark.parametrize(
    "change, kind, said",
    [
        ({"l3rs": "nobody/nothing"}, ArtifactError, "nobody/nothing"),
        ({"l3rs": ""}, ArtifactError, "''"),
        ({"l3rs": "recipes"}, ArtifactError, "config.json"),
        ({"l3rs": VIT}, BindingError, "fits 2 of 29 layers"),
        ({"model": "GPT"}, ConfigError, "'GPT'"),
        ({"horizon": 10**6}, ConfigError, "1000000"),
        ({"horizon": 5.5}, ConfigError, "5.5"),
        ({"task": 17}, ConfigError, "17"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, kind, said):
    choice = {"l3rs": RESNET, "model": "ResNet", "horizon": 5, "task": 1, **change}
    for action in (lambda: look(**choice), lambda: next(race(**choice))):
        with pytest.raises(kind, match=said):
            action()


def test_a_look_is_a_picture_and_its_description():
    pytest.importorskip("matplotlib")
    picture, summary = look(RESNET, "ResNet", 5, 1)
    assert picture.width > 500 and summary.endswith("beside adam and sgd is the share of muon.")


def test_the_page_answers_every_choice():
    pytest.importorskip("matplotlib")
    pytest.importorskip("gradio")
    from recipes.space.app import App

    app = App()
    opened = app.show(app.l3rs.value, app.model.value, 5, 1)
    assert not opened[app.message].visible and opened[app.picture].width > 500
    refused = app.show("nobody/<b>nothing</b>", "ResNet", 5, 1)
    assert refused[app.message].visible and "&lt;b>" in refused[app.message].value and refused[app.picture] is None
    assert app.choose(VIT, "ResNet") == {app.model: "ViT"} and app.choose(ANY, "ViT") == {app.model: "ViT"}
    assert app.choose("nobody/nothing", "ResNet") == {app.model: "ResNet"}
    end = list(app.race(RESNET, "ResNet", 5, 1))[-1]
    assert "| L3RS |" in end[app.ends] and len(end[app.losses])
    (refused,) = app.race(VIT, "ResNet", 5, 1)
    assert "fits 2 of 29 layers" in refused[app.message].value and refused[app.losses].empty


def test_the_space_has_what_it_needs(tmp_path):
    bundle.main([str(tmp_path / "space")])
    header = yaml.safe_load((tmp_path / "space/README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert header["sdk"] == "gradio" and (tmp_path / "space" / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60
    needed = (tmp_path / "space/requirements.txt").read_text().splitlines()
    assert "gradio>=6" in needed and any(line.startswith("torch>") for line in needed)
    with pytest.raises(StorageError, match="is not empty"):
        bundle.bundle(tmp_path / "space")
