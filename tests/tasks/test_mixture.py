"""Tasks of several models, which take turns."""

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.tasks.distribution import Horizon, TaskMixture
from tests.meta.problems import make_model, make_tasks


def test_members_take_turns():
    models = [make_model(seed) for seed in range(3)]
    mixture = TaskMixture([make_tasks(model) for model in models])
    assert mixture.models == models
    for generation in range(2):
        drawn = [mixture.draw(0, generation, pair).model for pair in range(6)]
        assert {models.index(model) for model in drawn[:3]} == {0, 1, 2} and drawn[:3] == drawn[3:]
        assert drawn[0] is models[generation]


def test_a_draw_is_the_members_own():
    members = [make_tasks(make_model(seed)) for seed in range(2)]
    drawn, own = TaskMixture(members).draw(3, 1, 4), members[1].draw(3, 1, 4)
    assert drawn.seed == own.seed and drawn.num_training_steps == own.num_training_steps
    assert torch.equal(drawn.batches[0].pixel_values, own.batches[0].pixel_values)


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        TaskMixture([])


def test_members_have_one_horizon_and_any_batch_size():
    with pytest.raises(ConfigError, match="one horizon, got several"):
        TaskMixture([make_tasks(), make_tasks(horizon=Horizon(4, 5))])
    mixture = TaskMixture([make_tasks(batch_size=[4, 8]), make_tasks(batch_size=8)])
    assert mixture.horizon == Horizon(4, 4)
    sizes = [len(mixture.draw(0, 0, pair).batches[0].labels) for pair in range(20)]
    assert set(sizes[::2]) == {4, 8} and set(sizes[1::2]) == {8}
