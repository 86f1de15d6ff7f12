import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hf_l3rs.errors import CheckpointError, ConfigError
from hf_l3rs.meta import trainer as trainer_module
from hf_l3rs.meta.arguments import MetaTrainingArguments
from hf_l3rs.meta.candidates import Rollout
from hf_l3rs.meta.checkpoint import METRICS_NAME, list_checkpoints
from hf_l3rs.meta.evolution import tell
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
    log = trainer._log

    def interrupt(metrics):
        log(metrics)
        if metrics["generation"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer._log = interrupt
    handler = signal.getsignal(signal.SIGTERM)
    trainer.train()
    assert trainer.was_interrupted
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_diverged_candidates_are_counted_and_change_no_other(tmp_path, monkeypatch):
    """Invariant 7."""
    told = []
    monkeypatch.setattr(
        trainer_module, "tell", lambda es, state, losses: told.append(losses) or tell(es, state, losses)
    )
    calm, wild = make_trainer(str(tmp_path / "calm"), 1), make_trainer(str(tmp_path / "wild"), 1)
    calm.train()
    real, count = wild._rollout, iter(range(100))

    def sometimes_diverges(vector, task):
        result = real(vector, task)
        return Rollout(float("inf"), float("inf"), 0.0, 2) if next(count) == 2 else result

    wild._rollout = sometimes_diverges
    wild.train()
    assert metrics_of(tmp_path / "wild")[0]["num_diverged"] == 1
    assert wild.progress.cost["num_diverged"] == 1
    others = torch.arange(6) != 2
    assert torch.equal(told[0].flatten()[others], told[1].flatten()[others])
    assert torch.isfinite(wild.progress.state.mean).all()


def test_early_stopping(tmp_path):
    trainer = make_trainer(str(tmp_path), 50, es={"learning_rate": 1e-12}, early_stopping_patience=2)
    trainer.train()
    assert trainer.progress.state.generation < 50


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
