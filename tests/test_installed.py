"""The way of somebody who has the package and not the repository, as README shows it, in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.loopback_hub import TOKEN


ROOT = Path(__file__).parents[1]
# What makes the run a matter of minutes; without it, the settings are those that `init` wrote.
SMALL = ["--num_generations", 8, "--num_validation_tasks", 4, "--validation_interval", 4]
FEW = ["--num_tasks", 2, "--num_search_tasks", 1, "--horizons", 10, "--baselines", "Adam constant"]
QUICKSTART = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
# README's snippet, on a ResNet of random weights and images of two kinds.
TRY = f"""
import torch, transformers
import hf_l3rs

assert "site-packages" in hf_l3rs.__file__, hf_l3rs.__file__
transformers.set_seed(0)
config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
model = transformers.ResNetForImageClassification(config)
dataset = [{{"pixel_values": torch.randn(3, 16, 16) + number % 2, "labels": number % 2}} for number in range(64)]
{QUICKSTART}
assert trainer.state.log_history[-1]["train_loss"] < 0.5, trainer.state.log_history
"""
# The ResNet of this repository on its images, with the L3RS that was made for it.
TRAIN = """
import sys
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments
from hf_l3rs import L3RS

model = AutoModelForImageClassification.from_pretrained("model", num_labels=10, ignore_mismatched_sizes=True)
processor = AutoImageProcessor.from_pretrained("model", backend="pil")
images = load_dataset("./images", split="test_batches").select(range(320))
pixels = processor([image.convert("RGB") for image in images["image"]], return_tensors="pt")["pixel_values"]
dataset = [{"pixel_values": image, "labels": label} for image, label in zip(pixels, images["label"][:])]
args = TrainingArguments("run", max_steps=10, per_device_train_batch_size=32, logging_steps=1, report_to="none",
                         use_cpu=True, save_strategy="no", disable_tqdm=True)
trainer = Trainer(model=model, args=args, train_dataset=dataset, optimizers=(L3RS.from_pretrained(sys.argv[1]), None))
trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
assert len(losses) == 10 and losses[-1] < 0.8 * losses[0], losses
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Installs the wheel beside the packages of these tests, and nothing else; returns the folder of its commands."""
    place = tmp_path_factory.mktemp("installed")
    source = place / "source"
    shutil.copytree(ROOT / "hf_l3rs", source / "hf_l3rs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(place / "wheel"), "."]
    subprocess.run(build, cwd=source, check=True)
    home = place / "venv"
    venv.create(home, with_pip=False)
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    (own / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = (place / "wheel").glob("*.whl")
    install = [*pip, "--python", str(home / "bin/python"), "install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*install, str(wheel)], check=True)
    shutil.rmtree(source)
    return home / "bin"


@pytest.fixture
def run(program, tmp_path):
    """Runs a command of the installation in an empty folder; returns what it told."""
    (tmp_path / "empty").mkdir()

    def run(name, *arguments, **variables):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
        command = [str(program / name), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, timeout=3000
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
        return done.stdout

    return run


def test_the_wheel_alone_fine_tunes_a_resnet_offline(run):
    """No network: README's eight lines with the released L3RS, and the list of all of them."""
    run("python", "-c", TRY, HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    assert "l3rs-vision" in [each["name"] for each in json.loads(run("hf-l3rs", "info", "--json", HF_HUB_OFFLINE="1"))]


@pytest.mark.slow
def test_from_a_wheel_in_an_empty_folder_to_a_repository_and_back(run, hub, tmp_path):
    folder = tmp_path / "empty"
    shutil.copytree(ROOT / "recipes/base_models/resnet-tiny-fashion", folder / "model")
    shutil.copytree(ROOT / "recipes/data/fashion_mnist", folder / "images")
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    told = run("hf-l3rs", "init", "--model", "model", "--data", "images", "--steps", 8, 20, "--minutes", 1, **online)
    assert "79,637 parameters in 29 layers, with batch norm" in told
    assert {path.name for path in folder.glob("*.yaml")} == {"my_l3rs.yaml", "my_l3rs_evaluate.yaml"}
    run("hf-l3rs", "meta-train", "my_l3rs.yaml", *SMALL, **online)
    metrics = [json.loads(line) for line in (folder / "outputs/my_l3rs/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["best_validation_loss"] < metrics[-1]["validation_loss_untrained"]
    assert "| 10 | L3RS |" in run("hf-l3rs", "evaluate", "my_l3rs_evaluate.yaml", *FEW, **online)
    information = json.loads(run("hf-l3rs", "info", "outputs/my_l3rs", "--model", "model", "--json", **online))
    assert information["layers"] == {"name": 29}
    run("hf-l3rs", "push", "outputs/my_l3rs", "me/tried", "--private", **online)
    repository = hub.repositories["me/tried"]
    card = repository.trees[repository.branches["main"]]["README.md"].decode()
    assert "hf-l3rs evaluate my_l3rs_evaluate.yaml" in card
    assert (
        json.loads(run("hf-l3rs", "info", "me/tried", "--json", **online))["fingerprint"] == information["fingerprint"]
    )
    run("python", "-c", TRAIN, "me/tried", **online)
