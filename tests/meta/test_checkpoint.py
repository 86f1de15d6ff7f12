"""A run's folder: checkpoints that are whole or told apart, one run at a time, and a log without gaps."""

import hashlib
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys

import filelock
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load, save

from hf_l3rs.errors import CheckpointError, ConfigError, StorageError
from hf_l3rs.meta.checkpoint import (
    METRICS_NAME,
    STATE_NAME,
    TENSORS_NAME,
    Progress,
    RunFolder,
    drop_after,
    find_newest_intact,
    list_checkpoints,
    load_checkpoint,
    plain_json,
    save_checkpoint,
    sole_use,
)
from hf_l3rs.meta.outer import OuterConfig, OuterState


SETTINGS = {"outer": {"sigma": 0.1}, "seed": 0}


def progress_at(generation, **changes):
    state = OuterState.start(torch.arange(3.0) + generation, generation - 1).move(OuterConfig(), torch.ones(3))
    return Progress(state, SETTINGS, **changes)


def test_round_trip(tmp_path):
    progress = progress_at(7, best_mean=torch.zeros(3), best_generation=5, best_loss=0.25, untrained_loss=0.5)
    progress.cost["inner_steps"] = 42
    progress.carried = {"0.k": torch.tensor(3), "0.random_state": torch.tensor([1, 2], dtype=torch.uint8)}
    folder = save_checkpoint(tmp_path, progress, keep=2)
    loaded = load_checkpoint(folder, SETTINGS)
    assert folder.name == "checkpoint-7" and loaded.state.generation == 7
    assert all(torch.equal(*pair) for pair in zip(loaded.state[:-1], progress.state[:-1]))
    assert torch.equal(loaded.best_mean, torch.zeros(3))
    assert (loaded.best_loss, loaded.best_generation, loaded.untrained_loss) == (0.25, 5, 0.5)
    assert loaded.cost == progress.cost
    assert {name: tensor.tolist() for name, tensor in loaded.carried.items()} == {"0.k": 3, "0.random_state": [1, 2]}


def test_the_last_ones_are_kept(tmp_path):
    for generation in (8, 9, 10, 11):
        save_checkpoint(tmp_path, progress_at(generation), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_other_settings_are_refused_by_name_and_are_no_damage(tmp_path):
    """Or else an older checkpoint of other settings would be looked for."""
    folder = save_checkpoint(tmp_path, progress_at(1), keep=1)
    other = {"outer": {"sigma": 0.2}, "seed": 1}
    for load_or_find, place in ((load_checkpoint, folder), (find_newest_intact, tmp_path)):
        with pytest.raises(CheckpointError, match="outer, seed"):
            load_or_find(place, other)


def damage_checkpoint(folder, damage):
    tensors, file = load((folder / TENSORS_NAME).read_bytes()), folder / STATE_NAME
    texts = {"a list": "[1]", "null": "null", "no sum": '{"generation": 1}'}
    if damage == "absent":
        shutil.rmtree(folder)
    elif damage == "truncated":
        content = (folder / TENSORS_NAME).read_bytes()
        (folder / TENSORS_NAME).write_bytes(content[: len(content) // 2])
    elif damage in texts:
        file.write_text(texts[damage])
    elif damage == "not utf-8":
        file.write_bytes(b"\xff\xfe")
    elif damage == "a bit of a tensor":
        content = bytearray((folder / TENSORS_NAME).read_bytes())
        content[-3] ^= 1
        (folder / TENSORS_NAME).write_bytes(content)
    elif damage == "no tensors":
        data, values = save({"mean": tensors["mean"]}), json.loads(file.read_text())
        del values["sha256"]
        (folder / TENSORS_NAME).write_bytes(data)
        checksum = hashlib.sha256(json.dumps(values, sort_keys=True).encode() + data).hexdigest()
        file.write_text(json.dumps({"sha256": checksum, **values}))


DAMAGES = [
    *("absent", "not utf-8", "a list", "null", "no sum", "a bit of a tensor", "no tensors"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_one_sentence_and_the_newest_intact_one_is_found(tmp_path, damage, caplog):
    for generation in (1, 2, 3):
        save_checkpoint(tmp_path, progress_at(generation), keep=3)
    damage_checkpoint(tmp_path / "checkpoint-3", damage)
    with pytest.raises(CheckpointError, match="not a readable meta-training checkpoint") as error:
        load_checkpoint(tmp_path / "checkpoint-3", SETTINGS)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    assert find_newest_intact(tmp_path, SETTINGS).name == "checkpoint-2"
    assert damage == "absent" or "checkpoint-3 is not" in caplog.text
    for generation in (1, 2):
        damage_checkpoint(tmp_path / f"checkpoint-{generation}", "truncated")
    with pytest.raises(CheckpointError, match="None of"):
        find_newest_intact(tmp_path, SETTINGS)


@pytest.mark.parametrize("end", [b"", b'{"generation": 3', b'{"generation": 3}', b"\0\0\0", b"\xff", b"[1]\n"])
def test_what_will_run_again_is_dropped_and_half_a_last_line(tmp_path, end):
    for generation in (1, 2, 3):
        save_checkpoint(tmp_path, progress_at(generation), keep=3)
    (tmp_path / METRICS_NAME).write_bytes(b'{"generation": 1}\n{"generation": 2}\n{"generation": 3}\n' + end)
    drop_after(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]
    assert (tmp_path / METRICS_NAME).read_bytes() == b'{"generation": 1}\n{"generation": 2}\n'
    (tmp_path / METRICS_NAME).write_bytes(b'{"generation": 1}\n{"generation": 2}')  # a whole line without its break
    drop_after(tmp_path, 2)
    assert (tmp_path / METRICS_NAME).read_bytes() == b'{"generation": 1}\n{"generation": 2}\n'


def strict_json(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict(tmp_path):
    progress = Progress(progress_at(1).state, {**SETTINGS, "odd": math.nan})
    folder = save_checkpoint(tmp_path, progress, keep=1)
    assert strict_json((folder / STATE_NAME).read_text())["settings"]["odd"] is None
    load_checkpoint(folder, progress.settings)
    with pytest.raises(ConfigError, match="Path"):
        plain_json({"folder": tmp_path})
    metrics = {"generation": 1, "meta_loss": math.nan, "validation_loss": math.inf, "sigma": 0.5}
    RunFolder(tmp_path, 1, Accelerator(cpu=True)).log(metrics)
    line = strict_json((tmp_path / METRICS_NAME).read_text())
    assert line == {"generation": 1, "meta_loss": None, "validation_loss": None, "sigma": 0.5}


HOLDER = """
import sys, time
from pathlib import Path
from hf_l3rs.meta.checkpoint import sole_use
with sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_kept_out_until_it_dies(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="Another run"), sole_use(tmp_path):
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with pytest.raises(ZeroDivisionError), sole_use(tmp_path):
        raise ZeroDivisionError
    (tmp_path / ".checkpoint-4.abc.tmp").mkdir()  # of a process that was killed while it wrote
    with sole_use(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_place_without_locks_is_used_with_a_warning_and_one_that_cannot_be_locked_is_named(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError, match="cannot be written"), sole_use(tmp_path):
        pass

    def unsupported(self, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    with caplog.at_level(logging.WARNING), sole_use(tmp_path / "other"):
        assert "cannot be locked" in caplog.text
