import json

import pytest
import torch

from hf_l3rs.errors import CheckpointError
from hf_l3rs.meta import checkpoint
from hf_l3rs.meta.checkpoint import (
    STATE_NAME,
    TENSORS_NAME,
    Progress,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from hf_l3rs.meta.evolution import ESState


def progress_at(generation, **changes):
    state = ESState(torch.arange(3.0) + generation, generation, {"exp_avg": torch.ones(3), "step": torch.tensor(2.0)})
    return Progress(state, {"es": {"sigma": 0.1}, "seed": 0}, **changes)


def test_round_trip(tmp_path):
    progress = progress_at(7, best_mean=torch.zeros(3), best_generation=5, best_loss=0.25, references={"adam": 0.3})
    progress.cost["inner_steps"] = 42
    folder = save_checkpoint(tmp_path, progress, keep=2)
    loaded = load_checkpoint(folder, progress.settings)
    assert folder.name == "checkpoint-7"
    assert torch.equal(loaded.state.mean, progress.state.mean) and loaded.state.generation == 7
    assert torch.equal(loaded.state.average, progress.state.average)
    assert loaded.state.optimizer.keys() == progress.state.optimizer.keys()
    assert torch.equal(loaded.best_mean, torch.zeros(3))
    assert (loaded.best_loss, loaded.best_generation, loaded.references) == (0.25, 5, {"adam": 0.3})
    assert loaded.cost == progress.cost


def test_the_last_ones_are_kept(tmp_path):
    for generation in (8, 9, 10, 11):
        save_checkpoint(tmp_path, progress_at(generation), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_a_failed_write_keeps_the_earlier_checkpoint_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, progress_at(1), keep=1)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left.*free some disk space"):
        save_checkpoint(tmp_path, progress_at(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    load_checkpoint(tmp_path / "checkpoint-1", progress_at(1).settings)


def test_other_settings_are_refused_by_name(tmp_path):
    folder = save_checkpoint(tmp_path, progress_at(1), keep=1)
    with pytest.raises(CheckpointError, match="differ from this run's in es, seed;"):
        load_checkpoint(folder, {"es": {"sigma": 0.2}, "seed": 1})


@pytest.mark.parametrize("damage", ["absent", "truncated", "not json", "no generation"])
def test_damaged_checkpoints_give_one_sentence(tmp_path, damage):
    folder = save_checkpoint(tmp_path, progress_at(1), keep=1)
    if damage == "absent":
        folder = tmp_path / "checkpoint-9"
    elif damage == "truncated":
        content = (folder / TENSORS_NAME).read_bytes()
        (folder / TENSORS_NAME).write_bytes(content[: len(content) // 2])
    elif damage == "not json":
        (folder / STATE_NAME).write_text("{")
    else:
        (folder / STATE_NAME).write_text(json.dumps({"settings": {}}))
    with pytest.raises(CheckpointError, match="not a readable meta-training checkpoint") as error:
        load_checkpoint(folder, progress_at(1).settings)
    assert "\n" not in str(error.value)
