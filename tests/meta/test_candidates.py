import math

import pytest
import torch

from hf_l3rs import L3RS
from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.candidates import MetaLoss, rollout
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import EXPLODED, Evaluation, Trajectory, evaluate, fine_tune
from tests.meta.problems import make_model, make_network, make_tasks


def test_a_rollout_is_what_the_shipped_optimizer_does_in_a_plain_loop():
    model, network = make_model(), make_network(trained=True)
    task = make_tasks().draw(0, 0, 0)
    result = rollout(model, network, task)
    plain = make_model(1)
    plain.load_state_dict(dict(task.initial_state))
    optimizer = L3RS(plain, network=network, num_training_steps=4)
    for batch in task.batches:
        loss = plain(batch.pixel_values, batch.labels).loss
        loss.backward()
        optimizer.step(loss)
        optimizer.zero_grad()
    assert result.loss == evaluate(plain, task.evaluation).loss == result.meta_loss
    assert result.num_steps == 4
    for one, two in zip(model.parameters(), plain.parameters()):
        assert torch.equal(one, two)


def test_rollouts_repeat_whatever_ran_before():
    """Invariants 6 and 7: the model's and the global random state leave no trace."""
    model, network = make_model(dropout=0.3), make_network()
    task, other = make_tasks().draw(0, 0, 0), make_tasks().draw(0, 0, 1)
    first = rollout(model, network, task)
    broken = make_network()
    broken.biases[-1].data[-1] = 12.0  # steps e^12 times too large
    assert rollout(model, broken, other).meta_loss > first.meta_loss
    torch.manual_seed(123)
    assert rollout(model, network, task) == first


def test_divergence_is_cut_short_and_infinite():
    """Invariant 7."""
    model, network = make_model(), make_network()
    network.biases[-1].data[-1] = 12.0
    task = make_tasks(horizon=Horizon(40, 40)).draw(0, 0, 0)
    result = rollout(model, network, task)
    assert result.meta_loss == result.loss == math.inf
    assert result.accuracy == 0.0
    assert result.num_steps < 40
    assert math.log(3) * EXPLODED > 10


def test_evaluation_points_and_scheduler():
    model, task = make_model(), make_tasks(horizon=Horizon(6, 6)).draw(0, 0, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 6)
    trajectory = fine_tune(model, task, optimizer, scheduler=scheduler, evaluate_at=(2, 4))
    assert list(trajectory.evaluations) == [2, 4, 6]
    assert scheduler.last_epoch == 6
    assert math.isfinite(trajectory.training_loss) and not trajectory.diverged


def test_clipping_is_part_of_the_inner_loop():
    task = make_tasks().draw(0, 0, 0)
    model = make_model()
    plain = rollout(model, make_network(trained=True), task)
    clipped = rollout(model, make_network(trained=True, max_grad_norm=0.01), task)
    assert plain.loss != clipped.loss


def test_meta_loss():
    trajectory = Trajectory({5: Evaluation(1.0, 0.75)}, training_loss=3.0, num_steps=5, diverged=False)
    assert MetaLoss()(trajectory) == 1.0
    assert MetaLoss(trajectory_weight=0.25)(trajectory) == pytest.approx(1.5)
    assert MetaLoss(accuracy_weight=2.0)(trajectory) == pytest.approx(1.5)
    assert MetaLoss()(trajectory._replace(diverged=True)) == math.inf
    assert MetaLoss()(trajectory._replace(evaluations={5: Evaluation(math.nan, 0.1)})) == math.inf
    with pytest.raises(ConfigError, match="trajectory_weight"):
        MetaLoss(trajectory_weight=2.0)
