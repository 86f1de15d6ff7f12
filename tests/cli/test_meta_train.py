"""`hf-l3rs meta-train`, alone and as a module under a launcher."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from hf_l3rs.cli.meta_train import ARGUMENTS
from hf_l3rs.errors import NothingToKeepError
from hf_l3rs.hub.artifact import load_network


def write_settings(inputs, folder):
    settings = {
        "base_model": str(inputs / "base"),
        "datasets": [str(inputs / "images")],
        "num_classes": 3,
        "batch_size": 4,
        "evaluation_size": 8,
        "min_steps": 2,
        "num_validation_tasks": 0,
        "estimator": "gradient",
        "num_tasks": 2,
        "num_generations": 1,
        "output_dir": str(folder / "out"),
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(settings))
    return folder / "my.yaml"


def test_a_settings_file_and_options_make_an_l3rs(run, inputs, tmp_path):
    status, out, _ = run("meta-train", write_settings(inputs, tmp_path), "--min_steps", "3")
    assert (status, out) == (0, "")
    assert load_network(tmp_path / "out/l3rs").config.num_training_steps == 3


def test_the_best_of_several_seeds_is_kept(run, inputs, tmp_path):
    """Whole runs, at the cost of all; the first is the one that a single seed makes."""
    settings = write_settings(inputs, tmp_path)
    several = ["--num_seeds", "2", "--num_validation_tasks", "2"]
    assert run("meta-train", settings, *several)[0] == 0
    summary = load_network(tmp_path / "out/l3rs").config.meta_training
    costs = [json.loads((tmp_path / f"out/seed-{seed}/metrics.jsonl").read_text())["inner_steps"] for seed in (0, 1)]
    assert summary["inner_steps"] == sum(costs) and summary["chosen_from"] == 2 and summary["seed"] in (0, 1)
    before = (tmp_path / "out/l3rs/model.safetensors").read_bytes()
    status, _, err = run("meta-train", settings, *several)
    assert status == 1 and "seed-0 already holds checkpoint-1; resume with" in err
    status, _, err = run("meta-train", settings)
    assert status == 1 and "out holds runs of several seeds, seed-0 among them" in err
    shutil.rmtree(tmp_path / "out/seed-1")  # as if it had been interrupted between the two
    assert run("meta-train", settings, *several, "--resume_from_checkpoint", "last")[0] == 0
    assert (tmp_path / "out/l3rs/model.safetensors").read_bytes() == before
    (tmp_path / "other/checkpoint-1").mkdir(parents=True)
    several += ["--resume_from_checkpoint", "last", "--output_dir", str(tmp_path / "other")]
    status, _, err = run("meta-train", settings, *several)
    assert status == 1 and "other already holds checkpoint-1" in err
    status, _, err = run("meta-train", settings, "--num_seeds", "2", "--output_dir", str(tmp_path / "other"))
    assert status == 1 and "num_validation_tasks is 0 " in err


def test_a_seed_that_gave_nothing_is_no_choice_but_a_cost(run, inputs, tmp_path, monkeypatch, caplog):
    several = ["--num_seeds", "2", "--num_validation_tasks", "1"]
    outcomes = [NothingToKeepError("Nothing."), None, NothingToKeepError("Nothing."), NothingToKeepError("Nothing.")]

    def check_outcome(selection, progress):
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    monkeypatch.setattr("hf_l3rs.meta.selection.Selection.check_outcome", check_outcome)
    assert run("meta-train", write_settings(inputs, tmp_path), *several)[0] == 0
    summary = load_network(tmp_path / "out/l3rs").config.meta_training
    assert (summary["seed"], summary["chosen_from"], summary["evaluations"]) == (1, 2, 4)
    assert "The choice is without seed 0: Nothing." in caplog.text
    status, _, err = run("meta-train", tmp_path / "my.yaml", *several, "--output_dir", tmp_path / "other")
    assert status == 1 and "Nothing." in err and not (tmp_path / "other/l3rs").exists()


def test_trackers_that_write_files_keep_seeds_apart(run, inputs, tmp_path):
    pytest.importorskip("tensorboard")
    several = ["--num_seeds", "2", "--num_validation_tasks", "1", "--report_to", "tensorboard"]
    assert run("meta-train", write_settings(inputs, tmp_path), *several)[0] == 0
    assert {path.parts[-3] for path in tmp_path.glob("out/**/l3rs-meta-training/events*")} == {"seed-0", "seed-1"}


def test_a_stop_in_the_last_generation_of_a_seed_begins_no_other(run, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_l3rs.meta.meta_trainer.MetaTrainer._all_agree_to_stop", ask_to_stop)
    several = ["--num_seeds", "2", "--num_validation_tasks", "1"]
    assert run("meta-train", write_settings(inputs, tmp_path), *several)[0] == 0
    assert (tmp_path / "out/seed-0/checkpoint-1").is_dir() and not (tmp_path / "out/seed-1").exists()
    assert not (tmp_path / "out/l3rs").exists()


def ask_to_stop(trainer):
    trainer._interruption.requested = True
    return True


def test_help_lists_the_settings(run, capsys):
    with pytest.raises(SystemExit) as exit:
        run("meta-train", "--help")
    output = capsys.readouterr().out
    assert exit.value.code == 0 and output.startswith("usage: hf-l3rs meta-train [SETTINGS.yaml] [--OPTION")
    titles = [line for line in output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert len(titles) >= len(ARGUMENTS) and "--num_generations VALUE" in output and "--num-generations" not in output


def test_a_settings_file_after_options_is_refused(run, inputs, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        run("meta-train", "--seed", "3", write_settings(inputs, tmp_path), "--base_model", "a", "--datasets", "b")
    assert exit.value.code == 2 and "must be the first argument" in capsys.readouterr().err


def test_a_used_folder_is_refused_before_model_and_images_are_there(run, inputs, tmp_path, monkeypatch):
    settings = write_settings(inputs, tmp_path)
    (tmp_path / "out/checkpoint-1").mkdir(parents=True)
    monkeypatch.setattr("hf_l3rs.cli.meta_train.build_tasks", None)
    status, _, err = run("meta-train", settings)
    assert status == 1 and "already holds checkpoint-1; resume with" in err
    with FileLock(tmp_path / "out/.lock"):
        status, _, err = run("meta-train", settings, "--resume_from_checkpoint", "last")
    assert status == 1 and "Another run is using" in err


def test_two_processes_of_a_launcher_make_the_same(inputs, tmp_path):
    """As `accelerate launch --module` starts several, and README has it."""
    settings = write_settings(inputs, tmp_path)
    root = str(Path(__file__).parents[2])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--module"]
    for name, launch in (("two", [*launcher, "-m"]), ("one", alone)):
        command = [*launch, "hf_l3rs.cli.main", "meta-train", str(settings), "--output_dir", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    networks = [load_network(tmp_path / name / "l3rs") for name in ("one", "two")]
    assert networks[0].fingerprint() == networks[1].fingerprint()
