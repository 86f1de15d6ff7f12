"""The pretraining recipe leaves complete, reloadable models; the embedded models are as good as their cards say."""

import runpy
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer

from hf_l3rs.tasks.images import load_image_pool
from hf_l3rs.tasks.pools import ImagePool
from recipes import pretrain


ROOT = Path(__file__).parents[2]
CLASS_NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


def accuracy(model, pool) -> float:
    with torch.no_grad():
        return (model.eval()(pool.pixel_values).logits.argmax(-1) == pool.labels).float().mean().item()


@pytest.fixture(scope="module")
def test_pool():
    """The images that the cards' accuracies are measured on."""
    base_model = ROOT / "recipes" / "base_models" / "resnet-tiny-fashion"
    return load_image_pool(ROOT / "recipes" / "data" / "fashion_mnist", base_model, split="pretrain_test")


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
def test_smoke(architecture, tmp_path):
    folder = tmp_path / "model"
    metrics = pretrain.main(["--architecture", architecture, "--output_dir", str(folder), "--smoke", "--use_cpu"])
    assert {path.name for path in folder.iterdir()} == FILES

    model = AutoModelForImageClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == CLASS_NAMES
    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pool = load_image_pool(
        ROOT / "recipes" / "data" / "fashion_mnist", image_processor, split="pretrain_test", max_images=512
    )
    assert accuracy(model, pool) == pytest.approx(metrics["eval_accuracy"])
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.eval_results[0].metric_value == pytest.approx(metrics["eval_accuracy"], abs=1e-4)


@pytest.mark.parametrize("name", ["resnet-tiny-fashion", "vit-tiny-fashion"])
def test_embedded_models_are_as_good_as_their_cards(name, test_pool):
    folder = ROOT / "recipes" / "base_models" / name
    assert {path.name for path in folder.iterdir()} == FILES
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == CLASS_NAMES
    claimed = ModelCard.load(folder / "README.md").data.eval_results[0].metric_value
    assert accuracy(model, test_pool) == pytest.approx(claimed, abs=2e-3)  # other CPUs round a little differently


def test_augmentation_moves_and_flips_whole_images():
    pool = ImagePool(torch.arange(28.0).expand(1, 3, 28, 28), torch.tensor([7]), [])
    images = pretrain.build_dataset(pool, torch.tensor([3, 7]), "shift")
    batch = images.__getitems__([0] * 64)
    assert batch["pixel_values"].shape == (64, 3, 28, 28)
    assert batch["labels"].tolist() == [1] * 64
    steps = batch["pixel_values"].diff(dim=-1)[..., 2:-2]
    assert set(steps.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(batch["pixel_values"][:, 0], batch["pixel_values"][:, 2])
    shifts = {row[0, 0, 5:-5].sort().values[0].item() for row in batch["pixel_values"]}
    assert shifts == {3.0, 4.0, 5.0, 6.0, 7.0}


def test_every_image_is_varied_by_itself_and_stays_what_it_is():
    image = torch.zeros(3, 32, 32)
    image[:, 8:24, 8:24] = 1.0
    varied = pretrain.vary(image.expand(16, -1, -1, -1), torch.Generator().manual_seed(0))
    assert varied.shape == (16, 3, 32, 32) and len({each.numpy().tobytes() for each in varied}) == 16
    inside, corners = varied[:, :, 14:18, 14:18].amin((1, 2, 3)), varied[:, :, ::31, ::31].amax((1, 2, 3))
    assert (inside > corners + 0.4).all()


def test_data_sets_are_joined_each_with_its_own_classes(tmp_path):
    data = str(ROOT / "recipes" / "data" / "fashion_mnist")
    _, processor = pretrain.build_model(pretrain.ModelArguments(), ["unused"])
    pool = pretrain.load_pools([data, data], "pretrain_test", processor, 20)
    assert len(pool.labels) == len(pool.pixel_values) == 40
    assert torch.equal(pool.labels[20:], pool.labels[:20] + 10) and len(pool.class_names) == 20
    assert pool.class_names[10] == "fashion_mnist/T-shirt/top"


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
    assert one == other
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == FILES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset_name", "./missing"], "missing"),
        (["--train_split", "trian"], "trian"),
        (["--output_dir", "LICENSE"], "LICENSE cannot be written"),
        (["--num_pears", "3"], "--num_pears"),
        (["--warmup_steps", "-1"], "warmup_steps"),
        (["--image_size", "0"], "There is no resnet"),
        (["--config_overrides", "[1]"], "config_overrides"),
        (["--config_overrides", "{"], "config_overrides"),
        (["--config_overrides", '{"hiden_sizes": [8]}'], "hiden_sizes"),
        (["--architecture", "vit", "--config_overrides", '{"hidden_size": -8}'], "There is no vit with"),
    ],
)
def test_mistakes_end_in_one_sentence(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pretrain.py", "--output_dir", str(tmp_path), "--smoke", "--use_cpu", *options])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(ROOT / "recipes" / "pretrain.py"), run_name="__main__")
    said = exit.value.code if isinstance(exit.value.code, str) else capsys.readouterr().err
    assert message in said and "Traceback" not in said
