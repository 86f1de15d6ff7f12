import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from hf_l3rs import files
from hf_l3rs.errors import CheckpointError, ConfigError, MetaTrainingError, StorageError
from hf_l3rs.meta import meta_trainer as trainer_module
from hf_l3rs.meta.candidates import Rollout
from hf_l3rs.meta.checkpoint import STATE_NAME, TENSORS_NAME, list_checkpoints
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments
from hf_l3rs.meta.run_folder import METRICS_NAME, sole_use
from tests.meta.meta_train_tiny import make_trainer


SCRIPT = ["-m", "tests.meta.meta_train_tiny"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]


def metrics_of(folder):
    return [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]


def launch(command, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *SCRIPT, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()


def weights(folder):
    return (folder / "l3rs" / "model.safetensors").read_bytes()


@pytest.mark.distributed
def test_meta_weights_do_not_depend_on_processes_or_interruptions(tmp_path):
    """Invariant 6: one process, two processes, and two that are killed and resumed by one give the same bytes."""
    one = launch([sys.executable], tmp_path / "one", 40)
    killed = launch(TORCHRUN, tmp_path / "killed", 40)
    deadline = time.monotonic() + 90
    while not list_checkpoints(tmp_path / "killed") and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(killed.pid)], capture_output=True, text=True).stdout.split()
    for pid in map(int, children):
        os.kill(pid, signal.SIGKILL)
    killed.kill()
    killed.wait()
    finish(one)
    assert list_checkpoints(tmp_path / "killed"), "the processes were killed before the first checkpoint"
    assert list_checkpoints(tmp_path / "killed")[-1].name != "checkpoint-40", "the processes had already finished"
    finish(launch([sys.executable], tmp_path / "killed", 40, "last"))
    finish(launch(TORCHRUN, tmp_path / "two", 40))
    assert weights(tmp_path / "one") == weights(tmp_path / "two") == weights(tmp_path / "killed")
    logged = [[m["validation_loss"] for m in metrics_of(tmp_path / name)[1::2]] for name in ("one", "two", "killed")]
    assert logged[0] == logged[1] == logged[2]


def test_meta_training_improves_on_the_untrained(tmp_path):
    trainer = make_trainer(str(tmp_path), 60, es={"learning_rate": 0.1, "sigma": 0.1})
    network = trainer.train()
    progress = trainer.progress
    assert progress.best_loss < 0.8 * progress.references["untrained"]
    assert torch.equal(network.to_vector(), progress.best_mean)
    logged = metrics_of(tmp_path)
    assert [entry["generation"] for entry in logged] == list(range(1, 61))
    assert logged[-1]["inner_steps"] == 60 * 6 * 4 == progress.cost["inner_steps"]
    assert trainer.summary()["best_generation"] == progress.best_generation


def test_resuming_goes_on_exactly_and_truncates_the_log(tmp_path):
    whole = make_trainer(str(tmp_path / "whole"), 6)
    whole.train()
    half = make_trainer(str(tmp_path / "half"), 6)
    half._all_agree_to_stop = lambda: half.progress.state.generation == 4
    half.train()
    with open(tmp_path / "half" / METRICS_NAME, "a") as file:
        file.write('{"generation": 5}\n{"gener')
    resumed = make_trainer(str(tmp_path / "half"), 6, resume_from_checkpoint="last")
    resumed.train()
    assert torch.equal(resumed.progress.state.mean, whole.progress.state.mean)
    assert [entry["generation"] for entry in metrics_of(tmp_path / "half")] == [1, 2, 3, 4, 5, 6]


def test_another_run_is_never_overwritten(tmp_path):
    make_trainer(str(tmp_path), 2).train()
    with pytest.raises(CheckpointError, match="resume_from_checkpoint='last'"):
        make_trainer(str(tmp_path), 2).train()
    with pytest.raises(CheckpointError, match="differ from this run's in es"):
        make_trainer(str(tmp_path), 2, es={"sigma": 0.3}, resume_from_checkpoint="last").train()


def test_a_signal_ends_training_after_the_generation_with_a_checkpoint(tmp_path):
    trainer = make_trainer(str(tmp_path), 50, checkpoint_interval=0, validation_interval=0)
    log = trainer.folder.log

    def interrupt(metrics):
        log(metrics)
        if metrics["generation"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.folder.log = interrupt
    handler = signal.getsignal(signal.SIGTERM)
    trainer.train()
    assert trainer.was_interrupted
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_diverged_candidates_are_counted_and_change_no_other(tmp_path):
    """Invariant 7."""
    told = []
    calm, wild = make_trainer(str(tmp_path / "calm"), 1), make_trainer(str(tmp_path / "wild"), 1)
    for trainer in (calm, wild):
        scores = trainer.estimator.scores
        trainer.estimator.scores = lambda state, scores=scores: told.append(scores(state)) or told[-1]
    calm.train()
    real, count = wild.scorer.score, iter(range(100))

    def sometimes_diverges(vector, task):
        result = real(vector, task)
        return Rollout(float("inf"), float("inf"), 0.0, 2) if next(count) == 2 else result

    wild.estimator.scorer = SimpleNamespace(score=sometimes_diverges)
    wild.train()
    assert metrics_of(tmp_path / "wild")[0]["num_diverged"] == 1
    assert wild.progress.cost["num_diverged"] == 1
    others = torch.arange(6) != 2
    assert torch.equal(told[0][..., 0].flatten()[others], told[1][..., 0].flatten()[others])
    assert torch.isfinite(wild.progress.state.mean).all()


def test_early_stopping(tmp_path):
    trainer = make_trainer(str(tmp_path), 50, es={"learning_rate": 1e-12}, early_stopping_patience=2)
    trainer.train()
    assert trainer.progress.state.generation < 50


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("changes", [{"es": {"learning_rate": 1e-12}, "early_stopping_patience": 1}, {}], ids=str)
def test_a_run_that_is_over_stays_so(tmp_path, changes):
    """Invariant 6: also where it stopped early, and however often it is resumed."""
    trainer = make_trainer(str(tmp_path), 5, **changes)
    vector = trainer.train().to_vector()
    assert (trainer.progress.state.generation < 5) == bool(changes)
    files = files_of(tmp_path)
    for _ in range(2):
        resumed = make_trainer(str(tmp_path), 5, **changes, resume_from_checkpoint="last")
        resumed.estimator = None  # nothing may be asked
        assert torch.equal(resumed.train().to_vector(), vector)
        assert resumed.summary() == trainer.summary() and not resumed.was_interrupted
        assert files_of(tmp_path) == files


@pytest.mark.parametrize("name", [TENSORS_NAME, STATE_NAME])
def test_a_damaged_last_checkpoint_costs_no_more_than_itself(tmp_path, caplog, name):
    whole = make_trainer(str(tmp_path / "whole"), 6)
    whole.train()
    half = make_trainer(str(tmp_path / "half"), 6)
    half._all_agree_to_stop = lambda: half.progress.state.generation == 5
    half.train()
    content = bytearray((tmp_path / "half" / "checkpoint-5" / name).read_bytes())
    content[-5] ^= 1
    (tmp_path / "half" / "checkpoint-5" / name).write_bytes(content)
    resumed = make_trainer(str(tmp_path / "half"), 6, keep_checkpoints=1, resume_from_checkpoint="last")
    resumed.train()
    assert "checkpoint-5 is not a readable" in caplog.text and "from generation 4" in caplog.text
    assert torch.equal(resumed.progress.state.mean, whole.progress.state.mean)
    assert [path.name for path in list_checkpoints(tmp_path / "half")] == ["checkpoint-6"]
    assert [entry["generation"] for entry in metrics_of(tmp_path / "half")] == [1, 2, 3, 4, 5, 6]


def test_checkpoints_of_another_size_or_optimizer_are_refused(tmp_path):
    make_trainer(str(tmp_path), 2).train()
    resumed = make_trainer(str(tmp_path), 2, resume_from_checkpoint="last")
    resumed.progress.state = resumed.progress.state._replace(mean=torch.zeros(3))
    with pytest.raises(CheckpointError, match="None of the 1 checkpoints"):
        resumed.train()


def test_one_run_at_a_time(tmp_path):
    with sole_use(tmp_path), pytest.raises(CheckpointError, match="Another run is using .*; wait until it ends"):
        make_trainer(str(tmp_path), 2).train()
    make_trainer(str(tmp_path), 2).train()


def test_a_run_is_never_mixed_with_another_ones_checkpoints(tmp_path):
    for name in ("one", "two"):
        make_trainer(str(tmp_path / name), 2).train()
    elsewhere = str(tmp_path / "one" / "checkpoint-2")
    with pytest.raises(CheckpointError, match="already holds checkpoint-2"):
        make_trainer(str(tmp_path / "two"), 2, resume_from_checkpoint=elsewhere).train()
    make_trainer(str(tmp_path / "three"), 2, resume_from_checkpoint=elsewhere).train()


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_run_in_which_everything_diverges_fails_with_one_sentence(tmp_path, caplog):
    trainer = make_trainer(str(tmp_path), 3)
    for state in trainer.tasks.initial_states.states:
        state["encoder.weight"].fill_(math.nan)
    with pytest.raises(MetaTrainingError, match="gave nothing: all 18 candidates diverged.*check the base") as error:
        trainer.train()
    assert "\n" not in str(error.value)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once for generations in a row"
    assert "All 6 candidates of generation 1 diverged" in caplog.text
    entries = [strict(line) for line in (tmp_path / METRICS_NAME).read_text().splitlines()]
    assert [entry["meta_loss"] for entry in entries] == [None] * 3
    strict((tmp_path / "checkpoint-3" / STATE_NAME).read_text())
    with pytest.raises(MetaTrainingError, match="gave nothing"):
        make_trainer(str(tmp_path), 3, resume_from_checkpoint="last").train()


def test_a_run_without_a_finite_validation_fails(tmp_path):
    trainer = make_trainer(str(tmp_path), 3)
    trainer.selection._scorer = copy.copy(trainer.scorer)  # the estimator's goes on as it is
    trainer.selection._scorer.score = lambda vector, task: Rollout(math.inf, math.nan, 0.0, 2)
    with pytest.raises(MetaTrainingError, match="diverged at every validation"):
        trainer.train()


def test_what_is_not_finite_is_null_in_the_summary(tmp_path):
    trainer = make_trainer(str(tmp_path), 2)
    trainer.selection._measure_references = lambda: {"Adam": math.inf}
    trainer.train()
    summary = trainer.summary()
    assert summary["validation_loss_Adam"] is None and summary["validation_loss_untrained"] > 0
    strict(json.dumps(summary))
    strict((tmp_path / METRICS_NAME).read_text().splitlines()[-1])


def test_the_summary_tells_data_cost_and_settings(tmp_path):
    first = make_trainer(str(tmp_path), 2)
    data = [{"path": "blobs", "splits": ["train"]}]
    tasks = {"datasets": [{"hub_id": None, "path": "blobs"}], "batch_size": 8}
    settings = {"data": data, "tasks": tasks}
    trainer = type(first)(first.network, first.tasks, first.es, first.args, settings=settings)
    trainer.train()
    summary = trainer.summary()
    assert summary["data"] == data and summary["datasets"] == ["blobs"] and summary["batch_size"] == 8
    assert summary["evaluations"] == 2 * 6 and summary["num_pairs"] == 3 and "data" not in first.summary()
    assert summary["cost_in_plain_steps"] == summary["inner_steps"] == 2 * 6 * 4
    trainer.network.config = trainer.network.config.replace(meta_training={"inner_steps": 10})  # of an older L3RS
    assert trainer.summary()["cost_in_plain_steps"] == trainer.summary()["inner_steps"] == 10 + 2 * 6 * 4
    trainer.network.config = trainer.network.config.replace(meta_training={"inner_steps": 1, "cost_in_plain_steps": 3})
    assert trainer.summary()["cost_in_plain_steps"] == 3 + 2 * 6 * 4
    with pytest.raises(ConfigError, match="plain JSON"):
        type(first)(first.network, first.tasks, first.es, first.args, settings={"folder": tmp_path})


def test_training_outside_the_main_thread(tmp_path):
    """Python lets only the main thread handle signals."""
    trainers = [make_trainer(str(tmp_path / name), 2) for name in ("main", "thread")]
    trainers[0].train()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(trainers[1].train).result()
    assert torch.equal(trainers[0].progress.state.mean, trainers[1].progress.state.mean)


def test_references_are_measured_before_the_bar_starts_and_once(tmp_path, monkeypatch):
    order = []
    bar = trainer_module.tqdm
    monkeypatch.setattr(trainer_module, "tqdm", lambda **kwargs: order.append("bar") or bar(**kwargs))
    trainer = make_trainer(str(tmp_path), 4)
    trainer.selection._measure_references = lambda: order.append("references") or {"Adam": 0.5}
    trainer._all_agree_to_stop = lambda: trainer.progress.state.generation == 2
    trainer.train()
    assert order == ["references", "bar"]
    resumed = make_trainer(str(tmp_path), 4, resume_from_checkpoint="last")
    resumed.selection._measure_references = lambda: order.append("references")
    resumed.train()
    assert order == ["references", "bar", "bar"]
    assert metrics_of(tmp_path)[-1]["validation_loss_Adam"] == 0.5


@pytest.mark.parametrize("place", ["occupied", "/proc/nothing/here"])
def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path, place):
    (tmp_path / "occupied").write_text("a file")
    trainer = make_trainer(str(tmp_path / place), 2)
    trainer.estimator = None
    with pytest.raises(StorageError, match="cannot be written") as error:
        trainer.train()
    assert "\n" not in str(error.value)


def test_a_full_disk_ends_the_run_with_one_sentence_and_the_last_checkpoint_intact(tmp_path, monkeypatch):
    trainer = make_trainer(str(tmp_path), 6)
    write = files._write

    def full(file, data):
        if trainer.progress.state.generation == 4:
            raise OSError(28, "No space left on device")
        write(file, data)

    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(CheckpointError, match="checkpoint-4 could not be written .*No space left") as error:
        trainer.train()
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    whole, resumed = (
        make_trainer(str(tmp_path / "whole"), 6),
        make_trainer(str(tmp_path), 6, resume_from_checkpoint="last"),
    )
    assert torch.equal(whole.train().to_vector(), resumed.train().to_vector())


def test_one_task_for_the_generation_or_one_for_each_pair(tmp_path):
    seen = []
    for task_per_pair in (True, False):
        trainer = make_trainer(
            str(tmp_path / str(task_per_pair)), 1, task_per_pair=task_per_pair, validation_interval=0
        )
        real = trainer.tasks.draw
        drawn = []
        trainer.tasks.draw = lambda *key, real=real, drawn=drawn: drawn.append(key) or real(*key)
        trainer.train()
        seen.append({key[2] for key in drawn})
    assert seen == [{0, 1, 2}, {0}]


@pytest.mark.parametrize("changes", [{"validation_interval": -1}, {"keep_checkpoints": 0}, {"num_threads": 0}])
def test_bad_arguments_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        MetaTrainingArguments("out", **changes)
