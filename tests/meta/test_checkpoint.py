import hashlib
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load, save

from hf_l3rs.errors import CheckpointError, ConfigError
from hf_l3rs.meta.checkpoint import (
    STATE_NAME,
    TENSORS_NAME,
    Progress,
    list_checkpoints,
    load_checkpoint,
    load_newest_intact,
    plain_json,
    save_checkpoint,
    set_aside_after,
)
from hf_l3rs.meta.outer import OuterState


def progress_at(generation, **changes):
    state = OuterState(
        torch.arange(3.0) + generation, generation, {"exp_avg": torch.ones(3), "step": torch.tensor(2.0)}
    )
    return Progress(state, {"es": {"sigma": 0.1}, "seed": 0}, **changes)


def test_round_trip(tmp_path):
    progress = progress_at(7, best_mean=torch.zeros(3), best_generation=5, best_loss=0.25, references={"adam": 0.3})
    progress.cost["inner_steps"] = 42
    progress.carried = {"0.k": torch.tensor(3), "0.random_state": torch.tensor([1, 2], dtype=torch.uint8)}
    folder = save_checkpoint(tmp_path, progress, keep=2)
    loaded = load_checkpoint(folder, progress.settings)
    assert folder.name == "checkpoint-7"
    assert torch.equal(loaded.state.mean, progress.state.mean) and loaded.state.generation == 7
    assert torch.equal(loaded.state.average, progress.state.average)
    assert loaded.state.optimizer.keys() == progress.state.optimizer.keys()
    assert torch.equal(loaded.best_mean, torch.zeros(3))
    assert (loaded.best_loss, loaded.best_generation, loaded.references) == (0.25, 5, {"adam": 0.3})
    assert loaded.cost == progress.cost
    assert {name: tensor.tolist() for name, tensor in loaded.carried.items()} == {"0.k": 3, "0.random_state": [1, 2]}


def test_older_checkpoints_cost_their_inner_steps(tmp_path):
    progress = progress_at(1)
    progress.cost["inner_steps"] = 42
    del progress.cost["cost_in_plain_steps"]
    loaded = load_checkpoint(save_checkpoint(tmp_path, progress, keep=1), progress.settings)
    assert loaded.cost["cost_in_plain_steps"] == loaded.cost["inner_steps"] == 42


def test_the_last_ones_are_kept(tmp_path):
    for generation in (8, 9, 10, 11):
        save_checkpoint(tmp_path, progress_at(generation), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_a_failed_write_keeps_the_earlier_checkpoint_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, progress_at(1), keep=1)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_l3rs.files._write", full_disk)
    with pytest.raises(CheckpointError, match="No space left.*free some disk space"):
        save_checkpoint(tmp_path, progress_at(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    load_checkpoint(tmp_path / "checkpoint-1", progress_at(1).settings)


def test_other_settings_are_refused_by_name(tmp_path):
    folder = save_checkpoint(tmp_path, progress_at(1), keep=1)
    with pytest.raises(CheckpointError, match="differ from this run's in es, seed;"):
        load_checkpoint(folder, {"es": {"sigma": 0.2}, "seed": 1})


LIKE = progress_at(1).state


def rewrite(folder, tensors=None, **changes):
    """What somebody would have to do to a checkpoint for its checksums to fit."""
    values = json.loads((folder / STATE_NAME).read_text())
    del values["sha256"]
    if tensors is not None:
        (folder / TENSORS_NAME).write_bytes(save(tensors))
        changes["tensors_sha256"] = hashlib.sha256((folder / TENSORS_NAME).read_bytes()).hexdigest()
    values |= changes
    checksum = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (folder / STATE_NAME).write_text(json.dumps({"sha256": checksum, **values}))


def flip_a_bit(path, index):
    content = bytearray(path.read_bytes())
    content[index] ^= 1
    path.write_bytes(content)


def damage_checkpoint(folder, damage):
    tensors = load((folder / TENSORS_NAME).read_bytes())
    if damage == "absent":
        shutil.rmtree(folder)
    elif damage == "truncated":
        content = (folder / TENSORS_NAME).read_bytes()
        (folder / TENSORS_NAME).write_bytes(content[: len(content) // 2])
    elif damage == "not json":
        (folder / STATE_NAME).write_text("{")
    elif damage == "not utf-8":
        (folder / STATE_NAME).write_bytes(b"\xff\xfe")
    elif damage in ("a list", "a number", "null", "nested"):
        text = {"a list": "[1]", "a number": "7", "null": "null", "nested": "[" * 100_000}[damage]
        (folder / STATE_NAME).write_text(text)
    elif damage == "no generation":
        (folder / STATE_NAME).write_text(json.dumps({"settings": {}}))
    elif damage == "a bit of a tensor":
        flip_a_bit(folder / TENSORS_NAME, -3)
    elif damage == "a digit of the JSON":
        text = (folder / STATE_NAME).read_text()
        (folder / STATE_NAME).write_text(text.replace('"evaluations": 0', '"evaluations": 1'))
    elif damage == "nan":
        rewrite(folder, {**tensors, "mean": torch.full((3,), math.nan)})
    elif damage == "no moments":
        rewrite(folder, {name: tensor for name, tensor in tensors.items() if "exp_avg" not in name})
    elif damage == "wrong size":
        rewrite(folder, {**tensors, "mean": torch.zeros(4)})
    elif damage == "wrong type":
        rewrite(folder, {**tensors, "average": torch.zeros(3, dtype=torch.int32)})
    elif damage == "no best":
        rewrite(folder, best_generation=1, best_loss=0.5)
    elif damage == "settings":
        rewrite(folder, settings=[])
    elif damage == "no tensors":
        rewrite(folder, {})


DAMAGES = [
    *("absent", "truncated", "not json", "not utf-8", "a list", "a number", "null", "nested", "no generation"),
    *("a bit of a tensor", "a digit of the JSON", "nan", "no moments", "wrong size", "wrong type", "no best"),
    *("settings", "no tensors"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_give_one_sentence(tmp_path, damage):
    folder = save_checkpoint(tmp_path, progress_at(1), keep=1)
    damage_checkpoint(folder, damage)
    with pytest.raises(CheckpointError, match="not a readable meta-training checkpoint") as error:
        load_checkpoint(folder, progress_at(1).settings, LIKE)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_intact_one_is_found(tmp_path, damage, caplog):
    for generation in (1, 2, 3):
        save_checkpoint(tmp_path, progress_at(generation), keep=3)
    settings = progress_at(1).settings
    damage_checkpoint(tmp_path / "checkpoint-3", damage)
    assert load_newest_intact(tmp_path, settings, LIKE).state.generation == 2
    assert damage == "absent" or "checkpoint-3 is not a readable" in caplog.text
    for generation in (1, 2):
        damage_checkpoint(tmp_path / f"checkpoint-{generation}", "truncated")
    with pytest.raises(CheckpointError, match="None of the . checkpoints .* is intact"):
        load_newest_intact(tmp_path, settings, LIKE)


def test_other_settings_are_no_damage(tmp_path):
    """Or else an older checkpoint of other settings would be looked for."""
    save_checkpoint(tmp_path, progress_at(1), keep=1)
    with pytest.raises(CheckpointError, match="differ from this run's in seed;"):
        load_newest_intact(tmp_path, {**progress_at(1).settings, "seed": 1}, LIKE)


def test_later_checkpoints_are_set_aside(tmp_path):
    for generation in (1, 2, 3):
        save_checkpoint(tmp_path, progress_at(generation), keep=3)
    set_aside_after(tmp_path, 1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert (tmp_path / "checkpoint-3.set-aside" / STATE_NAME).exists()
    save_checkpoint(tmp_path, progress_at(2), keep=2)
    set_aside_after(tmp_path, 1)  # again: the earlier one makes room
    assert len(list(tmp_path.iterdir())) == 3


def test_json_is_strict_and_infinite_losses_come_back(tmp_path):
    progress = progress_at(1, references={"untrained": math.inf, "Adam": 0.5})
    progress.settings["odd"] = math.nan
    folder = save_checkpoint(tmp_path, progress, keep=1)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    values = json.loads((folder / STATE_NAME).read_text(), parse_constant=refuse)
    assert values["references"] == {"untrained": None, "Adam": 0.5} and values["settings"]["odd"] is None
    loaded = load_checkpoint(folder, progress.settings, LIKE)
    assert loaded.references == progress.references
    with pytest.raises(ConfigError, match="plain JSON values.*Path"):
        plain_json({"folder": tmp_path})
