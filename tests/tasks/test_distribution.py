"""Tasks are a function of their seeds, and impossible distributions are refused."""

import hashlib

import pytest
import torch

from hf_l3rs.errors import ConfigError, DataError
from hf_l3rs.tasks.distribution import Horizon, TaskMixture, TaskSource
from hf_l3rs.tasks.pools import AUGMENTATIONS, Transform
from tests.meta.problems import make_model, make_pool, make_tasks


def same(first, second):
    return all(
        torch.equal(a.pixel_values, b.pixel_values) and torch.equal(a.labels, b.labels)
        for a, b in zip(first.batches, second.batches)
    )


def test_a_task_is_a_function_of_seed_generation_and_pair():
    """Invariant 6."""
    tasks = make_tasks()
    torch.manual_seed(1)
    first = tasks.draw(0, 3, 1)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = make_tasks().draw(0, 3, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(first, again)
    for name, tensor in first.initial_state.items():
        assert torch.equal(tensor, again.initial_state[name])
    assert not any(same(first, other) for other in (tasks.draw(1, 3, 1), tasks.draw(0, 4, 1), tasks.draw(0, 3, 2)))


def test_batches_never_come_from_the_evaluation_pool():
    source = TaskSource("split", make_pool(seed=0), make_pool(seed=1))
    task = make_tasks(sources=[source]).draw(0, 0, 0)
    held_out = {tuple(image.flatten().tolist()) for image in source.evaluation.pixel_values}
    for batch in task.batches:
        assert not held_out & {tuple(image.flatten().tolist()) for image in batch.pixel_values}
    for batch in task.evaluation:
        assert held_out >= {tuple(image.flatten().tolist()) for image in batch.pixel_values}


def test_the_same_image_comes_again_only_in_the_next_epoch():
    task = make_tasks(horizon=Horizon(11, 11)).draw(0, 0, 0)
    rows = torch.cat(list(task.batches.rows))
    assert len(set(rows[:88].tolist())) == 88  # 90 images of three classes


def test_the_head_is_drawn_anew_and_the_trunk_is_shared():
    tasks = make_tasks()
    first, second = tasks.draw(0, 0, 0).initial_state, tasks.draw(0, 0, 1).initial_state
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    assert first["encoder.weight"] is second["encoder.weight"]


def test_horizons_are_log_uniform():
    rng = torch.Generator().manual_seed(0)
    drawn = sorted(Horizon(10, 500).draw(0, 100, 0, rng) for _ in range(400))
    assert drawn[0] >= 10 and drawn[-1] <= 500
    assert drawn[200] == pytest.approx((10 * 500) ** 0.5, rel=0.3)
    with pytest.raises(ConfigError, match="minimum <= maximum"):
        Horizon(10, 5)


def test_horizons_of_a_generation_are_spread_evenly():
    """Every generation has short, middling and long runs."""
    spread = make_tasks(horizon=Horizon(8, 32, spread=True))
    for generation in range(5):
        horizons = sorted(spread.draw(3, generation, pair).num_training_steps for pair in range(8))
        assert sum(steps < 16 for steps in horizons) == pytest.approx(4, abs=1)
        assert horizons[1] < 12 and horizons[-2] > 20
    assert len({spread.draw(3, generation, 0).num_training_steps for generation in range(20)}) > 5
    fixed = [make_tasks(horizon=Horizon(4, 4, spread=spread)).draw(0, 0, 0) for spread in (True, False)]
    assert same(*fixed)  # nothing else is drawn differently


def test_pools_of_other_channels_are_refused():
    gray = make_pool(seed=1)
    gray = gray._replace(pixel_values=gray.pixel_values[:, :1])
    with pytest.raises(DataError, match="other classes or channels"):
        make_tasks(sources=[TaskSource("a", make_pool(), gray)])


def test_augmentations_widen_the_distribution_and_stay_within_a_task():
    tasks = make_tasks(augmentations=AUGMENTATIONS)
    transforms = {tasks.draw(0, 0, pair).batches.transform for pair in range(30)}
    assert len(transforms) > 10
    task = tasks.draw(0, 0, 0)
    assert task.batches.transform == task.evaluation.transform
    assert torch.equal(task.batches.label_map, task.evaluation.label_map)
    plain = make_tasks().draw(0, 0, 0)
    assert plain.batches.transform == Transform()
    image = torch.arange(48.0).view(1, 3, 4, 4)
    changed = Transform(quarter_turns=1, inverted=True, channels=(2, 0, 1))(image)
    assert torch.equal(changed[0, 0], -torch.rot90(image[0, 2], 1))


def test_draws_are_those_of_earlier_versions():
    """Published L3RS are made again, and interrupted runs go on, only as long as this holds."""
    tasks = make_tasks(horizon=Horizon(4, 9), augmentations=AUGMENTATIONS)
    digest = hashlib.sha256()
    for pair in range(8):
        task = tasks.draw(3, 2, pair)
        rows = [[part.tolist() for part in view.rows] for view in (task.batches, task.evaluation)]
        drawn = (task.seed, task.num_training_steps, *rows, task.batches.label_map.tolist())
        digest.update(repr((*drawn, tuple(task.batches.transform))).encode())
    assert digest.hexdigest()[:16] == "1c73cfcb4a1c46ad"


def test_one_batch_size_to_choose_from_is_no_choice():
    one, list_of_one, several = (make_tasks(batch_size=size) for size in (8, [8], [8, 16]))
    drawn = [one.draw(0, 0, pair) for pair in range(6)]
    for pair, task in enumerate(drawn):
        assert torch.equal(torch.stack(task.batches.rows), torch.stack(list_of_one.draw(0, 0, pair).batches.rows))
        other = several.draw(0, 0, pair)  # the same classes and length, whatever its size
        assert (other.seed, other.num_training_steps) == (task.seed, task.num_training_steps)
        assert torch.equal(other.batches.label_map, task.batches.label_map)


def test_members_take_turns():
    models = [make_model(seed) for seed in range(3)]
    mixture = TaskMixture([make_tasks(model) for model in models])
    assert mixture.models == models
    for generation in range(2):
        drawn = [mixture.draw(0, generation, pair).model for pair in range(6)]
        assert {models.index(model) for model in drawn[:3]} == {0, 1, 2} and drawn[:3] == drawn[3:]
        assert drawn[0] is models[generation]


def test_members_have_one_horizon_and_any_batch_size():
    for members in ([], [make_tasks(), make_tasks(horizon=Horizon(4, 5))]):
        with pytest.raises(ConfigError, match="one horizon"):
            TaskMixture(members)
    mixture = TaskMixture([make_tasks(batch_size=[4, 8]), make_tasks(batch_size=8)])
    assert mixture.horizon == Horizon(4, 4)
    sizes = [len(mixture.draw(0, 0, pair).batches[0].labels) for pair in range(20)]
    assert set(sizes[::2]) == {4, 8} and set(sizes[1::2]) == {8}
