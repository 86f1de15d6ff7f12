"""`hf-l3rs meta-train`, alone and as a module under a launcher."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from hf_l3rs.cli.meta_train import ARGUMENTS
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
        command = [*launch, "hf_l3rs.cli", "meta-train", str(settings), "--output_dir", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    networks = [load_network(tmp_path / name / "l3rs") for name in ("one", "two")]
    assert networks[0].fingerprint() == networks[1].fingerprint()
