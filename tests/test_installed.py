"""The way of somebody who has the package and not the repository, as README shows it, in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

from tests.loopback_hub import TOKEN


ROOT = Path(__file__).parents[1]
# What makes the run a matter of minutes; without it, the settings are those that `init` wrote.
SMALL = ["--num_generations", 8, "--num_validation_tasks", 4, "--validation_interval", 4]
FEW = ["--num_tasks", 2, "--num_search_tasks", 1, "--horizons", 10]
TRAIN = """
import sys, torch
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments
import hf_l3rs
from hf_l3rs import L3RS

assert "site-packages" in hf_l3rs.__file__, hf_l3rs.__file__
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
print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
"""


@pytest.fixture
def program(tmp_path):
    """Installs the wheel beside the packages of these tests, and nothing else; returns the folder of its commands."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "hf_l3rs", source / "hf_l3rs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path / "wheel"), "."]
    subprocess.run(build, cwd=source, check=True)
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    (own / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    install = [*pip, "--python", str(home / "bin/python"), "install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*install, str(wheel)], check=True)
    shutil.rmtree(source)
    return home / "bin"


@pytest.mark.slow
def test_from_a_wheel_in_an_empty_folder_to_a_repository_and_back(program, hub, tmp_path):
    folder = tmp_path / "empty"
    shutil.copytree(ROOT / "recipes/base_models/resnet-tiny-fashion", folder / "model")
    shutil.copytree(ROOT / "recipes/data/fashion_mnist", folder / "images")
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONPATH")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}

    def run(name, *arguments):
        start = time.perf_counter()
        command = [str(program / name), *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
        print(f"{time.perf_counter() - start:.0f} s: {name} {' '.join(map(str, arguments))[:60]}")
        return done.stdout

    told = run("hf-l3rs", "init", "--model", "model", "--data", "images", "--steps", 8, 20, "--minutes", 1)
    assert "79,637 parameters in 29 layers, with batch norm" in told
    print(re.search("meta-training .*", told)[0])
    assert {path.name for path in folder.glob("*.yaml")} == {"my_l3rs.yaml", "my_l3rs_evaluate.yaml"}
    run("hf-l3rs", "meta-train", "my_l3rs.yaml", *SMALL)
    metrics = [json.loads(line) for line in (folder / "outputs/my_l3rs/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["best_validation_loss"] < metrics[-1]["validation_loss_untrained"]
    assert "| 10 | L3RS |" in run("hf-l3rs", "evaluate", "my_l3rs_evaluate.yaml", *FEW)
    information = json.loads(run("hf-l3rs", "info", "outputs/my_l3rs/l3rs", "--model", "model", "--json"))
    assert information["base model"] == "model" and "fits all 29 layers" in information["fit to model"]
    run("hf-l3rs", "push", "outputs/my_l3rs", "me/tried", "--private")
    repository = hub.repositories["me/tried"]
    card = repository.trees[repository.branches["main"]]["README.md"].decode()
    assert "No results stored yet" not in card and "hf-l3rs evaluate my_l3rs_evaluate.yaml" in card
    assert json.loads(run("hf-l3rs", "info", "me/tried", "--json"))["fingerprint"] == information["fingerprint"]
    print(run("python", "-c", TRAIN, "me/tried"))
