"""Runs that are cut into windows: every step once, and back from a checkpoint to the last bit."""

import pytest
import safetensors.torch
import torch

from hf_l3rs.errors import CheckpointError
from hf_l3rs.meta.episodes import Episode, first_images
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.unrolled import UnrolledLearner
from tests.meta.problems import make_model, make_network, make_tasks
from tests.tiny import tiny_resnet


def make_episode(model=None, num_candidates=2, num_steps=5, end=5):
    model = model or make_model(dropout=0.3)
    network = make_network(model, trained=True)
    task = make_tasks(model, horizon=Horizon(num_steps, num_steps)).draw(0, 0, 0)
    learner = UnrolledLearner(model, network, network.to_vector(), num_steps, keep_graph=False)
    learner.start(task.initial_state)
    return Episode(0, task, end, [learner.snapshot()] * num_candidates), learner


def test_windows_cover_a_run_once():
    episode, learner = make_episode(end=5)
    seen = []
    while episode.num_steps < episode.end:
        window = episode.window(2, 0)
        seen.append(len(window.batches))
        assert window.num_training_steps == seen[-1]
        for index in range(seen[-1]):
            expected = episode.task.batches[episode.num_steps + index].pixel_values
            assert torch.equal(window.batches[index].pixel_values, expected)
        with pytest.raises(IndexError):
            window.batches[seen[-1]]
        for batch in window.batches:
            learner.step(batch)
        episode = episode._replace(snapshots=[learner.snapshot()])
    assert seen == [2, 2, 1]


@pytest.mark.parametrize(("count", "expected"), [(0, 24), (10, 10), (24, 24), (100, 24)])
def test_a_window_is_judged_by_the_first_images(count, expected):
    episode, _ = make_episode()
    whole = torch.cat([batch.pixel_values for batch in episode.task.evaluation])
    parts = first_images(list(episode.task.evaluation), count)
    assert torch.equal(torch.cat([batch.pixel_values for batch in parts]), whole[:expected])
    halves = [type(batch)(*(part[:7] for part in batch)) for batch in episode.task.evaluation] * 3
    assert sum(len(batch.labels) for batch in first_images(halves, 10)) == 10


@pytest.mark.parametrize("make", [lambda: make_model(dropout=0.3), tiny_resnet])
def test_a_run_comes_back_from_its_tensors_to_the_last_bit(make):
    """Running statistics, averages and dropout included."""
    model = make()
    fresh, learner = make_episode(model)
    learner.step(fresh.task.batches[0])
    with torch.no_grad():
        learner.params[0].view(-1)[0] = -0.0
    on_its_way = fresh._replace(snapshots=[learner.snapshot(), fresh.snapshots[0]])
    resumed = fresh.resumed(safetensors.torch.load(safetensors.torch.save(on_its_way.tensors())))
    assert [snapshot.k for snapshot in resumed.snapshots] == [1, 0]
    one, two = on_its_way.tensors(), resumed.tensors()
    assert one.keys() == two.keys()
    assert all(one[name].numpy().tobytes() == two[name].numpy().tobytes() for name in one)


def test_tensors_of_other_runs_are_refused():
    episode, _ = make_episode()
    for other in (make_episode(tiny_resnet())[0], make_episode(num_candidates=3)[0]):
        with pytest.raises(CheckpointError, match="not those of this model and combination; name another"):
            episode.resumed(other.tensors())
    with pytest.raises(CheckpointError, match="not those of this model"):
        episode.resumed({})
