"""How learning rates go over a run, at its start, in the middle and at its end."""

import pytest
import torch

from hf_l3rs.evaluation.schedules import SCHEDULES, make_scheduler, share_of_rate


@pytest.mark.parametrize(
    "schedule, warmup, expected",
    [
        ("constant", 0.0, {0: 1.0, 10: 1.0, 20: 1.0}),
        ("cosine", 0.0, {0: 1.0, 5: 0.853553, 10: 0.5, 20: 0.0}),
        ("linear", 0.0, {0: 1.0, 5: 0.75, 10: 0.5, 20: 0.0}),
        ("linear", 0.1, {0: 1 / 3, 1: 2 / 3, 2: 1.0, 11: 0.5, 19: 1 / 18, 20: 0.0}),
        ("cosine", 0.1, {0: 1 / 3, 2: 1.0, 11: 0.5, 20: 0.0}),
        ("constant", 0.1, {0: 1 / 3, 2: 1.0, 20: 1.0}),
    ],
)
def test_shares_of_the_rate(schedule, warmup, expected):
    assert {step: share_of_rate(schedule, step, 20, warmup) for step in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 5, 10])
def test_no_step_of_the_shortest_runs_is_taken_at_zero(schedule, num_steps):
    assert all(0 < share_of_rate(schedule, step, num_steps, 0.1) <= 1 for step in range(num_steps))


def test_every_group_has_its_own_rate():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 1.0}])
    scheduler = make_scheduler(optimizer, "linear", 4)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.075, 0.75])


def test_a_constant_rate_needs_no_scheduler():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    assert make_scheduler(optimizer, "constant", 4) is None
    assert make_scheduler(optimizer, "constant", 4, warmup=0.5) is not None
