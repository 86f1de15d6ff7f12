"""Trackers, for real: they are told what the L3RS does by role, and that changes no meta-weight."""

import pytest
import torch
from accelerate.state import AcceleratorState

from hf_l3rs.evaluation.trajectories import record_trajectory
from hf_l3rs.evaluation.trajectory_plots import TRAJECTORIES_NAME
from hf_l3rs.meta.trajectory_log import trajectory_figures
from hf_l3rs.optimizer.network import L3RSNetwork
from tests.meta.meta_train_tiny import make_trainer


@pytest.fixture(autouse=True)
def accelerate_starts_anew():
    yield
    AcceleratorState._reset_state(True)


def test_figures_are_by_role_and_moment(tmp_path):
    trainer = make_trainer(str(tmp_path))
    task = trainer.validation_tasks[0]
    network = L3RSNetwork(trainer.network.config)
    figures = trajectory_figures(record_trajectory(task.model, network, task))
    roles = {layer.role for layer in network.config.layers}
    names = {f"{name}/{role}" for name in ("lambda", "mu_adam", "mu_sgd") for role in roles}
    assert set(figures) == {f"{name}/{moment}" for name in names for moment in ("start", "middle", "end")}
    for role in roles:
        assert figures[f"mu_adam/{role}/end"] + figures[f"mu_sgd/{role}/end"] == pytest.approx(1, abs=1e-3)


def train_with(tracker, folder):
    """Returns the meta-weights of a run with a tracker, and of one without."""
    plain = make_trainer(str(folder / "plain"), 4).train().to_vector()
    AcceleratorState._reset_state(True)
    watched = make_trainer(str(folder / tracker), 4, report_to=tracker, project="watched").train().to_vector()
    assert torch.equal(plain, watched)


def test_tensorboard_has_lines_of_roles_and_references_and_a_picture(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_with("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "watched"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert {"meta_loss", "validation_loss", "validation_loss_untrained"} <= names
    for name in ("lambda/head.weight/start", "mu_adam/head.weight/middle", "mu_sgd/head.bias/end"):
        assert [event.step for event in events.Scalars(name)] == [2, 4]
    if (tmp_path / "tensorboard" / TRAJECTORIES_NAME).exists():  # where matplotlib is there
        assert events.Tags()["images"] == ["trajectories"]


def test_trackio_keeps_them_in_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    train_with("trackio", tmp_path)
    assert list((tmp_path / "trackio").glob("watched*"))


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train_with("wandb", tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    pictures = list((run / "files/media/images").glob("trajectories_4_*.png"))
    assert len(pictures) == (tmp_path / "wandb" / TRAJECTORIES_NAME).exists()  # where matplotlib is there
