"""The app without a browser: what it shows, and that what is not possible is said in a sentence."""

import math
import re
from pathlib import Path

import pytest
import torch
import yaml

from hf_l3rs import L3RSConfig
from hf_l3rs.errors import ArtifactError, BindingError, ConfigError, L3RSError, StorageError
from hf_l3rs.evaluation.baselines import BASELINES, Contender, l3rs_contender
from hf_l3rs.evaluation.benchmark import DIVERGED, measure
from hf_l3rs.hub.artifact import released_names
from recipes.evidence.behaviour import describe_behaviour
from recipes.evidence.race import race
from recipes.space import bundle as bundling
from recipes.space.embedded import HORIZONS, check_fit, horizon_of, load_network, load_stage, model_of, offered
from recipes.space.live_race import RATES, RIVALS, run_race
from recipes.space.look import layers_of, look, shares_of, sizes_of
from tests.evaluation.images import image_task
from tests.tiny import assert_same, parameters, tiny_mobilenet, trained_network


ROOT = Path(__file__).parents[2]
RESNET, VIT, ANY = "l3rs-resnet-tiny-fashion", "l3rs-vit-tiny-fashion", "l3rs-universal-start"


def test_a_look_shows_every_layer():
    pytest.importorskip("matplotlib")
    seen = look(RESNET, "ResNet", 5, 1)
    layers = layers_of(seen.table)
    assert layers == [name for name, _ in load_stage("ResNet").model.named_parameters()]
    assert seen.picture.width > 500 and len(seen.picture.convert("RGB").getcolors(10**6)) > 100
    assert describe_behaviour(seen.table) in seen.summary and "base step is 0.001 per element" in seen.summary
    assert seen.summary.endswith("What is left of 1 beside adam and sgd is the share of muon.")
    assert sizes_of(seen.table, layers[0]).step.tolist() == [1, 2, 3, 4, 5]
    shares = shares_of(seen.table, layers[0])
    assert shares.direction.unique().tolist() == ["adam", "sgd", "muon"]
    assert shares.groupby("step").share.sum().tolist() == pytest.approx([1.0] * 5, abs=1e-3)


def test_a_race_grows_and_is_paired():
    standings = list(run_race(RESNET, "ResNet", 6, 2, RIVALS, "searched"))
    assert [len(standing.curves) for standing in standings] == [4 * count for count in range(1, 8)]
    assert standings[0].curves.loss.nunique() == 1  # the same start for all
    end = standings[-1]
    assert end.curves.step.max() == 6 and end.verdict.startswith("After 6 steps L3RS is ")
    assert not any(standing.verdict for standing in standings[:-1])
    assert {"L3RS", "Adam at 1e-3"} < set(end.curves.optimizer)
    assert any(re.fullmatch(r"Adam cosine, 0\.\d+", name) for name in end.curves.optimizer.unique())
    (*_, slow) = run_race(RESNET, "ResNet", 6, 2, ["Adam constant"], "0.0001")
    assert "| Adam constant, 0.0001 |" in slow.table and "is ahead of" in slow.verdict
    own = {s.curves[s.curves.optimizer == "L3RS"].loss.iloc[-1] for s in (end, slow)}
    assert len(own) == 1  # whoever else races


@pytest.mark.parametrize(
    "l3rs, kind, said",
    [
        ("nobody/nothing", ArtifactError, "nobody/nothing"),
        ("not an id", ArtifactError, "'not an id' is neither"),
        ("", ArtifactError, "'' is neither"),
        ("recipes", ArtifactError, "config.json"),
        (VIT, BindingError, "fits 2 of 29 layers.*choose the model that it was made for"),
    ],
)
def test_an_l3rs_that_cannot_be_shown(l3rs, kind, said):
    for action in (lambda: look(l3rs, "ResNet", 5, 1), lambda: next(run_race(l3rs, "ResNet", 5, 1, [], "searched"))):
        with pytest.raises(kind, match=said) as error:
            action()
        assert isinstance(error.value, L3RSError) and "\n" not in str(error.value)


def test_choices_out_of_range():
    for change in ({"model": "GPT"}, {"horizon": 0}, {"horizon": 10**6}, {"horizon": 5.5}, {"task": 17}):
        with pytest.raises(ConfigError, match="must be"):
            look(**{"l3rs": RESNET, "model": "ResNet", "horizon": 5, "task": 1, **change})
    for rivals, rate in ((["SGD"], "searched"), (["Adam cosine"], "1e9")):
        with pytest.raises(ConfigError, match="A rival is one of"):
            next(run_race(RESNET, "ResNet", 5, 1, rivals, rate))


def test_what_an_l3rs_is_made_for():
    assert {RESNET, VIT, ANY} <= set(offered()) <= set(released_names()) and offered()[0] == RESNET
    assert [model_of(load_network(name).config, "none") for name in (RESNET, VIT, ANY)] == ["ResNet", "ViT", "ResNet"]
    assert model_of(load_network(ANY).config, "ViT") == "ViT"
    for name in offered():  # nothing is offered that the page could not show
        config = load_network(name).config
        check_fit(config, load_stage(model_of(config, "none")).model)
    assert horizon_of(load_network(RESNET).config) == 30
    layers = load_network(RESNET).config.layers
    assert horizon_of(L3RSConfig(layers=layers, num_training_steps=10**5)) == HORIZONS.high


def test_searched_rates_are_those_of_the_nearest_length():
    stage = load_stage("ResNet")
    for name in RIVALS[1:]:
        assert stage.rate(name, 22) == stage.rates[name][20] and stage.rate(name, 5) == stage.rates[name][10]
        assert {f"{rate:g}" for rate in stage.rates[name].values()} < set(RATES)


def test_the_page_answers_every_choice():
    pytest.importorskip("matplotlib")
    pytest.importorskip("gradio")
    from recipes.space.app import App

    app = App()
    opened = app.show(app.l3rs.value, app.model.value, 5, 1, None)
    assert not opened[app.message].visible and opened[app.picture] is not None
    shown = app.show(RESNET, "ResNet", 5, 1, None)
    first = layers_of(shown[app.decisions])[0]
    assert shown[app.layer].value == first and len(shown[app.sizes]) == 5 and not shown[app.message].visible
    kept = app.show(RESNET, "ResNet", 6, 1, "classifier.1.bias")
    assert kept[app.layer].value == "classifier.1.bias"
    refused = app.show("nobody/<b>nothing</b>", "ResNet", 5, 1, first)
    assert refused[app.message].visible and "&lt;b>" in refused[app.message].value
    assert refused[app.picture] is None and refused[app.decisions] is None
    assert app.choose(VIT, "ResNet", 20) == {app.model: "ViT", app.horizon: 30}
    assert app.choose("nobody/nothing", "ResNet", 20) == {app.model: "ResNet", app.horizon: 20}
    assert all(frame.empty for frame in app.show_layer(None, None).values())
    end = list(app.race(RESNET, "ResNet", 5, 1, ["Adam at 1e-3"], "searched"))[-1]
    assert "| L3RS |" in end[app.standing] and end[app.verdict]
    (refused,) = app.race(VIT, "ResNet", 5, 1, [], "searched")
    assert "fits 2 of 29 layers" in refused[app.message].value and refused[app.standing] is None


def test_the_space_has_what_it_needs(tmp_path):
    bundling.main([str(tmp_path / "space")])
    card = (tmp_path / "space/README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["sdk"] == "gradio" and (tmp_path / "space" / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60
    with pytest.raises(StorageError, match="is not empty"):
        bundling.bundle(tmp_path / "space")


def test_the_space_requires_what_the_package_does():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["space"]}
    lines = (ROOT / "recipes/space/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if not line.startswith("--")} == wanted


def wild(name, rate=1e9):
    return Contender(name, lambda model, num_training_steps: (torch.optim.SGD(model.parameters(), lr=rate), None))


def test_a_race_is_what_each_does_alone():
    """With dropout, whose random numbers come from one generator, and batch norm."""
    model = tiny_mobilenet()
    task = image_task(num_steps=5)._replace(model=model, initial_state=dict(tiny_mobilenet(seed=1).state_dict()))
    contenders = [l3rs_contender(trained_network(model)), BASELINES["Adam cosine"].at(1e-2)]
    before, rng = parameters(model), torch.get_rng_state()
    watched = list(race(model, contenders, task, evaluate_at=(0, 2)))
    assert [step for step, _ in watched] == [0, 2, 5]
    assert_same(parameters(model), before)
    assert torch.equal(torch.get_rng_state(), rng)
    for contender in contenders:
        alone = measure(tiny_mobilenet(seed=2), contender, task, evaluate_at=(0, 2))
        assert {step: evaluations[contender.name] for step, evaluations in watched} == alone
    first = watched[0][1]
    assert first["L3RS"] == first["Adam cosine"]  # the same start


def test_who_looks_may_leave():
    task, rng = image_task(num_steps=4), torch.get_rng_state()
    watching = race(task.model, [BASELINES["Adam at 1e-3"].at(1e-3)], task, evaluate_at=(1,))
    next(watching)
    watching.close()
    assert torch.equal(torch.get_rng_state(), rng)


def test_one_that_diverges_does_not_stop_the_other():
    task = image_task(num_steps=12)
    watched = dict(race(task.model, [wild("wild"), BASELINES["Adam at 1e-3"].at(1e-3)], task, evaluate_at=(10, 11)))
    assert [watched[step]["wild"] for step in (10, 11, 12)] == [DIVERGED] * 3
    assert all(math.isfinite(each["Adam at 1e-3"].loss) for each in watched.values())
    assert list(race(task.model, [wild("one"), wild("two")], task)) == [(12, {"one": DIVERGED, "two": DIVERGED})]


@pytest.mark.parametrize("contenders", [[], [wild("same"), wild("same")], "linear probe"])
def test_who_cannot_race_is_refused(contenders):
    task = image_task(num_steps=2)
    if contenders == "linear probe":
        contenders = [Contender("many", wild("many").build, starts_at_probe=True)]
    with pytest.raises(ConfigError, match="A race needs"):
        next(race(task.model, contenders, task))
