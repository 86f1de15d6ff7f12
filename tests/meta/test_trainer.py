import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate.utils import LoggerType

from hf_l3rs import files
from hf_l3rs.distributed import Interruption, make_accelerator, start_trackers
from hf_l3rs.errors import CheckpointError, ConfigError, MetaTrainingError
from hf_l3rs.meta.checkpoint import METRICS_NAME, STATE_NAME, TENSORS_NAME, list_checkpoints
from hf_l3rs.meta.evolution import Evolution, Rollout
from tests.meta.meta_train_tiny import make_trainer
from tests.meta.test_checkpoint import strict_json


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
    trainer = make_trainer(str(tmp_path), 60, outer={"learning_rate": 0.1, "sigma": 0.1})
    network = trainer.train()
    progress = trainer.progress
    assert progress.best_loss < 0.8 * progress.untrained_loss
    assert torch.equal(network.to_vector(), progress.best_mean)
    logged = metrics_of(tmp_path)
    assert [entry["generation"] for entry in logged] == list(range(1, 61))
    assert logged[-1]["inner_steps"] == 60 * 6 * 4 == progress.cost["inner_steps"]
    assert trainer.summary()["best_generation"] == progress.best_generation


@pytest.mark.parametrize("damaged", [None, TENSORS_NAME, STATE_NAME])
def test_resuming_goes_on_exactly_and_a_damaged_last_checkpoint_costs_no_more_than_itself(tmp_path, caplog, damaged):
    whole = make_trainer(str(tmp_path / "whole"), 6)
    whole.train()
    half = make_trainer(str(tmp_path / "half"), 6)
    half._all_agree_to_stop = lambda: half.progress.state.generation == 5
    half.train()
    if damaged is not None:
        content = bytearray((tmp_path / "half/checkpoint-5" / damaged).read_bytes())
        content[-5] ^= 1
        (tmp_path / "half/checkpoint-5" / damaged).write_bytes(content)
    with open(tmp_path / "half" / METRICS_NAME, "a") as file:
        file.write('{"generation": 6}\n{"gener')
    resumed = make_trainer(str(tmp_path / "half"), 6, keep_checkpoints=1, resume_from_checkpoint="last")
    resumed.train()
    assert damaged is None or ("checkpoint-5 is not" in caplog.text and "from generation 4" in caplog.text)
    assert torch.equal(resumed.progress.state.mean, whole.progress.state.mean)
    assert [path.name for path in list_checkpoints(tmp_path / "half")] == ["checkpoint-6"]
    assert [entry["generation"] for entry in metrics_of(tmp_path / "half")] == [1, 2, 3, 4, 5, 6]


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


def test_diverged_candidates_are_counted_and_change_no_other(tmp_path, monkeypatch):
    """Invariant 7."""
    told = {}
    real = Evolution.score_pair

    def watched(name, diverged=None):
        def score_pair(self, state, pair):
            results = real(self, state, pair)
            if pair == diverged:
                results[0] = Rollout(math.inf, 0.0, 2)
            told[name, pair] = results
            return results

        monkeypatch.setattr(Evolution, "score_pair", score_pair)
        trainer = make_trainer(str(tmp_path / name), 1)
        trainer.train()
        return trainer

    watched("calm")
    wild = watched("wild", diverged=1)
    assert metrics_of(tmp_path / "wild")[0]["num_diverged"] == 1 == wild.progress.cost["num_diverged"]
    assert all(told["calm", pair] == told["wild", pair] for pair in (0, 2))
    assert told["calm", 1][1] == told["wild", 1][1]
    assert torch.isfinite(wild.progress.state.mean).all()


@pytest.mark.parametrize("estimator", ["evolution", "gradient", "segments"])
def test_a_run_resumes_after_a_retreat(tmp_path, estimator):
    """A generation in which most failed leaves fresh moments, with which its checkpoint is as good as any."""

    def make(name, **options):
        outer = {"estimator": estimator, "num_tasks": 2, "segment_steps": 3}
        trainer = make_trainer(str(tmp_path / name), 4, outer, checkpoint_interval=1, **options)
        real = trainer.estimator.estimate

        def estimate(state):
            found = real(state)
            return found._replace(gradient=None) if state.generation == 1 else found

        trainer.estimator.estimate = estimate
        return trainer

    whole, half = make("whole"), make("half")
    whole.train()
    half._all_agree_to_stop = lambda: half.progress.state.generation == 2
    half.train()
    resumed = make("half", resume_from_checkpoint="last")
    resumed.train()
    assert all(torch.equal(*pair) for pair in zip(whole.progress.state[:-1], resumed.progress.state[:-1]))


def test_threads_are_as_before_even_after_an_error(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []
    try:
        trainer = make_trainer(str(tmp_path / "well"), 1)
        trainer.tasks.models[0].register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        trainer.train()
        assert set(seen) == {1} and torch.get_num_threads() == 3
        trainer = make_trainer(str(tmp_path / "badly"), 1)
        trainer.estimator = None
        with pytest.raises(AttributeError):
            trainer.train()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_is_over_stays_so(tmp_path):
    """Invariant 6: however often it is resumed."""
    trainer = make_trainer(str(tmp_path), 5)
    vector = trainer.train().to_vector()
    files = files_of(tmp_path)
    for _ in range(2):
        resumed = make_trainer(str(tmp_path), 5, resume_from_checkpoint="last")
        resumed.estimator = None  # nothing may be asked
        assert torch.equal(resumed.train().to_vector(), vector)
        assert resumed.summary() == trainer.summary() and not resumed.was_interrupted
        assert files_of(tmp_path) == files


def test_a_run_is_never_mixed_with_another_ones_checkpoints(tmp_path):
    for name in ("one", "two"):
        make_trainer(str(tmp_path / name), 2).train()
    elsewhere = str(tmp_path / "one" / "checkpoint-2")
    with pytest.raises(CheckpointError, match="already holds checkpoint-2"):
        make_trainer(str(tmp_path / "two"), 2, resume_from_checkpoint=elsewhere).train()
    make_trainer(str(tmp_path / "three"), 2, resume_from_checkpoint=elsewhere).train()


def test_a_run_in_which_everything_diverges_fails_with_one_sentence(tmp_path, caplog):
    trainer = make_trainer(str(tmp_path), 3)
    trainer.tasks.initial_states.state["encoder.weight"].fill_(math.nan)
    with pytest.raises(MetaTrainingError, match="gave nothing: all 18 candidates diverged.*check the base") as error:
        trainer.train()
    assert "\n" not in str(error.value)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once for generations in a row"
    assert "All 6 candidates of generation 1 diverged" in caplog.text
    entries = [strict_json(line) for line in (tmp_path / METRICS_NAME).read_text().splitlines()]
    assert [entry["meta_loss"] for entry in entries] == [None] * 3
    strict_json((tmp_path / "checkpoint-3" / STATE_NAME).read_text())
    with pytest.raises(MetaTrainingError, match="gave nothing"):
        make_trainer(str(tmp_path), 3, resume_from_checkpoint="last").train()


def test_a_run_without_a_finite_validation_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_l3rs.meta.selection.Selection.mean_loss", lambda *_: math.inf)
    trainer = make_trainer(str(tmp_path), 3)
    with pytest.raises(MetaTrainingError, match="diverged at every validation"):
        trainer.train()
    strict_json(json.dumps(trainer.summary()))
    assert strict_json((tmp_path / METRICS_NAME).read_text().splitlines()[-1])["validation_loss"] is None


def test_the_summary_tells_data_cost_and_settings(tmp_path):
    first = make_trainer(str(tmp_path), 2)
    data = [{"path": "blobs", "splits": ["train"]}]
    tasks = {"datasets": [{"hub_id": None, "path": "blobs"}], "batch_size": 8}
    settings = {"data": data, "tasks": tasks}
    trainer = type(first)(first.network, first.tasks, first.outer, first.args, settings=settings)
    trainer.train()
    summary = trainer.summary()
    assert summary["data"] == data and summary["datasets"] == ["blobs"] and summary["batch_size"] == 8
    assert summary["evaluations"] == 2 * 6 and summary["num_pairs"] == 3 and "data" not in first.summary()
    assert summary["cost_in_plain_steps"] == summary["inner_steps"] == 2 * 6 * 4
    assert summary["estimator"] == "evolution" and "num_tasks" not in summary
    trainer.network.config = trainer.network.config.replace(meta_training={"inner_steps": 1, "cost_in_plain_steps": 3})
    assert trainer.summary()["cost_in_plain_steps"] == 3 + 2 * 6 * 4


def test_training_outside_the_main_thread(tmp_path):
    """Python lets only the main thread handle signals."""
    trainers = [make_trainer(str(tmp_path / name), 2) for name in ("main", "thread")]
    trainers[0].train()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(trainers[1].train).result()
    assert torch.equal(trainers[0].progress.state.mean, trainers[1].progress.state.mean)


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


@pytest.mark.parametrize("number", Interruption.signals, ids=lambda number: number.name)
def test_the_first_signal_is_a_request_and_the_second_ends(number):
    before, interruption, ended = signal.getsignal(number), Interruption(), []
    signal.signal(number, lambda *args: ended.append(args))
    try:
        with interruption.on_signals():
            assert not interruption.requested
            os.kill(os.getpid(), number)
            assert interruption.requested and not ended
            os.kill(os.getpid(), number)
            assert ended
        os.kill(os.getpid(), number)
        assert len(ended) == 2, "the handler before was not restored"
    finally:
        signal.signal(number, before)


def test_processes_whose_weights_differ_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_l3rs.meta.meta_trainer.on_every_process", lambda _, execute: [execute(), b"other"])
    with pytest.raises(MetaTrainingError, match="same versions and settings"):
        make_trainer(str(tmp_path), 1).train()


def test_a_tracker_gets_numbers_and_flat_settings(tmp_path, monkeypatch):
    trainer, logged = make_trainer(str(tmp_path), 2), []
    monkeypatch.setattr(trainer.accelerator, "log", lambda values, step: logged.append((step, values)))
    monkeypatch.setattr(trainer.accelerator, "init_trackers", lambda project, config: logged.append(config))
    trainer.train()
    assert logged[0]["strategy.sigma"] == 0.05 and "config.layers" not in logged[0]
    assert [step for step, _ in logged[1:]] == [1, 2] and logged[2][1]["validation_loss"] > 0


def test_a_tracker_that_does_not_start_is_told_in_one_sentence_with_the_ways_out(monkeypatch):
    """As wandb does not without a login."""
    accelerator = make_accelerator()

    def refuse(*args, **kwargs):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")

    accelerator.log_with = [LoggerType.WANDB]
    monkeypatch.setattr(accelerator, "init_trackers", refuse)
    with pytest.raises(ConfigError, match=r"report_to is wandb, .*No API key.*offline") as error:
        start_trackers(accelerator, "project", {})
    assert "\n" not in str(error.value)
