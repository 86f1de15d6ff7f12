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


ROOT = Path(__file__).parents[1]
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
