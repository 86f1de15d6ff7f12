"""Evaluation at the average of the iterates, which changes nothing that follows."""

import pytest
import torch

from hf_l3rs.evaluation.averaged import AveragedLearner
from hf_l3rs.evaluation.baselines import BASELINES, recalibrated
from hf_l3rs.evaluation.benchmark import measure
from hf_l3rs.evaluation.recalibration import RecalibratedLearner
from hf_l3rs.tasks.inner_loop import ModelLearner, evaluate, run
from tests.evaluation.images import image_task
from tests.tiny import tiny_resnet


pytest.importorskip("dog")

GAMMA = 8  # of DoG's authors


def average_of_iterates(task):
    """A model with the average of weights and statistics, and one with the last ones."""
    model, averaged = tiny_resnet(), tiny_resnet()
    learner = ModelLearner(model, torch.optim.SGD(model.parameters(), lr=0.1))
    learner.start(task.initial_state)
    average = None
    for step, batch in enumerate(task.batches, start=1):
        learner.step(batch)
        now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        share = (GAMMA + 1) / (GAMMA + step)
        average = (
            now
            if average is None
            else {
                name: (1 - share) * average[name] + share * tensor if tensor.is_floating_point() else tensor
                for name, tensor in now.items()
            }
        )
    averaged.load_state_dict(average)
    return averaged, model


def test_evaluation_is_at_the_average_and_changes_nothing_that_follows():
    task, model = image_task(), tiny_resnet()
    trajectory = run(AveragedLearner(model, torch.optim.SGD(model.parameters(), lr=0.1)), task)
    averaged, last = average_of_iterates(task)
    assert trajectory.evaluations[6].loss == pytest.approx(evaluate(averaged, task.evaluation).loss, rel=1e-4)
    assert trajectory.evaluations[6].loss != pytest.approx(evaluate(last, task.evaluation).loss, rel=1e-4)
    assert all(map(torch.equal, model.state_dict().values(), last.state_dict().values()))
    model = tiny_resnet()
    learner = AveragedLearner(model, torch.optim.SGD(model.parameters(), lr=0.1))
    watched = run(learner, task, evaluate_at=(0, 2, 5))
    assert watched.evaluations[6] == trajectory.evaluations[6]


def test_recalibrated_it_still_averages():
    task, model = image_task(), tiny_resnet()
    contender = recalibrated(BASELINES["LDoG"].at(1.0))
    assert issubclass(contender.learner, RecalibratedLearner) and issubclass(contender.learner, AveragedLearner)
    trajectory = run(contender.learner(model, torch.optim.SGD(model.parameters(), lr=0.1)), task)
    averaged, _ = average_of_iterates(task)
    learner = RecalibratedLearner(averaged, torch.optim.SGD(averaged.parameters()))
    learner._seen.extend(task.batches)
    expected = learner.evaluate(task.evaluation)
    assert trajectory.evaluations[6].loss == pytest.approx(expected.loss, rel=1e-4)


def test_ldog_takes_part():
    task, model = image_task(), tiny_resnet()
    whole = measure(model, BASELINES["LDoG"].at(1.0), task)
    assert measure(model, BASELINES["LDoG"].at(1.0), task, evaluate_at=(2, 5))[6] == whole[6]
