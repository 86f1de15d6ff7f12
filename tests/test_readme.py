"""What README shows works as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import AutoModelForImageClassification, TrainingArguments


ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the snippets take for granted."""
    monkeypatch.chdir(ROOT)
    images, labels = torch.randn(8, 3, 28, 28), torch.arange(8) % 5
    args = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True)
    dataset = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, labels)]
    yield {
        "model": AutoModelForImageClassification.from_pretrained("recipes/base_models/resnet-tiny-fashion"),
        "args": args,
        "dataset": dataset,
        "loader": torch.utils.data.DataLoader(dataset, batch_size=4),
        "batches": [
            {"pixel_values": images[:4], "labels": labels[:4]},
            {"pixel_values": images[4:], "labels": labels[4:]},
        ],
    }
    AcceleratorState._reset_state(reset_partial_state=True)


def test_there_are_snippets():
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS)
def test_snippet(block, names):
    before = [parameter.detach().clone() for parameter in names["model"].parameters()]
    exec("from hf_l3rs import L3RS\n" + block, names)
    if "L3RSTrainer" in block:
        names["trainer"].train()
    assert not all(torch.equal(old, new) for old, new in zip(before, names["model"].parameters()))


def test_every_path_and_command_that_is_named_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:recipes|model_cards)/[\w./-]+", text):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
