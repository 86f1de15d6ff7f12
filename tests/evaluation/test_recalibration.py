"""Statistics of batch norm that belong to the weights that are evaluated."""

from contextlib import nullcontext

import torch

from hf_l3rs.evaluation.baselines import BASELINES, recalibrated
from hf_l3rs.evaluation.recalibration import RecalibratedLearner
from hf_l3rs.tasks.inner_loop import ModelLearner, evaluate, run
from tests.evaluation.images import image_task
from tests.meta.problems import make_model, make_tasks
from tests.tiny import tiny_resnet


def test_statistics_are_those_of_the_training_batches_at_the_last_weights():
    task, model, plain = image_task(), tiny_resnet(), tiny_resnet()
    learner = RecalibratedLearner(model, torch.optim.SGD(model.parameters(), lr=0.1))
    trajectory = run(learner, task, evaluate_at=(2,))
    other = run(ModelLearner(plain, torch.optim.SGD(plain.parameters(), lr=0.1)), task)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    stale = evaluate(plain, task.evaluation)
    assert stale == other.evaluations[6]
    plain.train()
    with torch.no_grad():
        for batch in task.batches:
            plain(pixel_values=batch.pixel_values)
    assert trajectory.evaluations[6] == evaluate(plain, task.evaluation) != stale


def test_statistics_are_of_the_last_batches_and_without_batch_norm_nothing_is_kept(monkeypatch):
    monkeypatch.setattr("hf_l3rs.evaluation.recalibration.NUM_RECALIBRATION_BATCHES", 2)
    task, model = image_task(), tiny_resnet()
    learner = RecalibratedLearner(model, torch.optim.SGD(model.parameters()))
    run(learner, task)
    assert [batch is wanted for batch, wanted in zip(learner._seen, task.batches[-2:])] == [True, True]
    linear = make_model()
    learner = RecalibratedLearner(linear, torch.optim.SGD(linear.parameters()), autocast=nullcontext)
    run(learner, make_tasks().draw(0, 0, 0))
    assert not learner._seen


def test_everybody_can_be_recalibrated():
    contenders = [BASELINES["Adam cosine"].at(1e-3), BASELINES["Schedule-free AdamW"]]
    assert recalibrated(contenders[0]).learner is RecalibratedLearner
    assert recalibrated(contenders[1]) is contenders[1]
