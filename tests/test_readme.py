"""What README shows works as it stands there, with no network and outside of the repository."""

import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import ResNetConfig, ResNetForImageClassification, TrainingArguments

from hf_l3rs.cli.main import main
from hf_l3rs.hub.artifact import released_names


ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the snippets take for granted: a ResNet of random weights, and images."""
    monkeypatch.chdir(tmp_path)
    images, labels = torch.randn(8, 3, 28, 28), torch.arange(8) % 5
    dataset = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, labels)]
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    yield {
        "model": ResNetForImageClassification(config).eval(),  # as `from_pretrained` returns it
        "args": TrainingArguments("run", max_steps=2, report_to="none", disable_tqdm=True),
        "dataset": dataset,
        "accelerator": Accelerator(),
        "loader": torch.utils.data.DataLoader(dataset, batch_size=4),
        "batches": [
            {"pixel_values": images[:4], "labels": labels[:4]},
            {"pixel_values": images[4:], "labels": labels[4:]},
        ],
    }
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("block", BLOCKS)
def test_snippet(block, names):
    before = [parameter.detach().clone() for parameter in names["model"].parameters()]
    exec("from hf_l3rs import L3RS\n" + block, names)
    if "L3RSTrainer" in block:
        names["trainer"].train()
    after = list(names["model"].parameters())
    assert not any(torch.equal(old, new.cpu()) for old, new in zip(before, after) if new.dim() > 1)
    assert all(torch.isfinite(parameter).all() for parameter in after)


def test_every_name_path_and_command_exists(capsys):
    paths = re.findall(r"\]\((?!http)([\w./-]+)\)", TEXT) + re.findall(r"`((?:recipes|model_cards)/[\w./-]+)`", TEXT)
    assert len(paths) >= 7 and all((ROOT / path).exists() for path in paths)
    assert set(re.findall(r"`(l3rs-[\w-]+)`", TEXT)) <= set(released_names())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"`make ([\w-]+)`", TEXT))
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(f" {command}" in told for command in re.findall(r"hf-l3rs ([\w-]+)", TEXT))
