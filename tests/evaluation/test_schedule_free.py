"""A schedule-free optimizer is evaluated at its average, with the statistics of that, which changes nothing else."""

from dataclasses import replace

import pytest
import torch

from hf_l3rs.evaluation.baselines import BASELINES, Contender
from hf_l3rs.evaluation.benchmark import measure
from hf_l3rs.evaluation.schedule_free import ScheduleFreeLearner
from hf_l3rs.evaluation.trained_part import TrainedPart
from hf_l3rs.tasks.inner_loop import evaluate, run
from tests.evaluation.images import image_task
from tests.meta.problems import make_model, make_tasks
from tests.tiny import tiny_resnet


class Averaging(torch.optim.SGD):
    """Trains at one point and averages at another, as a schedule-free optimizer does; its modes must be switched."""

    def __init__(self, params, lr=0.3):
        super().__init__(params, lr=lr)
        self.params = self.param_groups[0]["params"]
        self.averages = [param.detach().clone() for param in self.params]
        self.training, self.num_steps = False, 0

    def train(self):
        assert not self.training
        self._switch()

    def eval(self):
        assert self.training
        self._switch()

    def _switch(self):
        self.training = not self.training
        for param, average in zip(self.params, self.averages if self.num_steps else ()):
            trained = param.detach().clone()
            param.data.copy_(average)
            average.copy_(trained)

    def step(self, closure=None):
        assert self.training, "a step in evaluation mode"
        super().step(closure)
        self.num_steps += 1
        for param, average in zip(self.params, self.averages):
            average.lerp_(param.detach(), 1 / self.num_steps)


def test_evaluation_is_at_the_average_and_changes_nothing_that_follows():
    task, contender = make_tasks().draw(0, 0, 0), Contender("averaging", None, learner=ScheduleFreeLearner)
    contender = replace(contender, build=lambda model, num_training_steps: (Averaging(model.parameters()), None))
    model = make_model()
    alone = measure(model, contender, task)
    last = measure(model, contender, task, evaluate_at=(0, 1, 3))
    assert last[4] == alone[4] and list(last) == [0, 1, 3, 4]
    optimizer = Averaging(model.parameters())
    run(ScheduleFreeLearner(model, optimizer), task)
    optimizer.eval()
    assert evaluate(model, task.evaluation) == alone[4]


def test_batch_norm_is_taken_again_at_the_average():
    task, model = image_task(), tiny_resnet()
    optimizer = Averaging(model.parameters(), lr=0.01)
    trajectory = run(ScheduleFreeLearner(model, optimizer), task)
    # what a run without evaluations leaves, then what the authors ask for
    optimizer.eval()
    stale = evaluate(model, task.evaluation)
    model.train()
    with torch.no_grad():
        for batch in task.batches:
            model(pixel_values=batch.pixel_values)
    assert trajectory.evaluations[6] == evaluate(model, task.evaluation) != stale


def test_schedule_free_adamw_takes_part():
    pytest.importorskip("schedulefree")
    baseline = BASELINES["Schedule-free AdamW"]
    identity = baseline.identity
    assert identity["class"].startswith("schedulefree.") and identity["version"] and not identity["cosine"]
    task, model = image_task(), tiny_resnet()
    whole = measure(model, baseline.at(0.01), task)
    assert measure(model, baseline.at(0.01), task, evaluate_at=(2, 5))[6] == whole[6]
    optimizer = baseline.make(TrainedPart(model), 0.01)
    trajectory = run(ScheduleFreeLearner(model, optimizer), task)
    assert trajectory.evaluations[6] == whole[6] and optimizer.param_groups[0]["train_mode"]
