"""The inner loop: the same for candidates and baselines; what ran before leaves no trace."""

import math

import torch

from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import CHECK_INTERVAL, ModelLearner, fine_tune, inner_optimizer, run
from tests.meta.problems import make_model, make_network, make_tasks
from tests.tiny import tiny_resnet


def draw(steps=12, index=0):
    return make_tasks(horizon=Horizon(steps, steps)).draw(0, 0, index)


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-2)


def learned(model, network, task, **options):
    return ModelLearner(model, inner_optimizer(model, network, task.num_training_steps), **options)


def test_a_head_only_run_changes_nothing_for_the_next():
    """The gradients that it left in the trunk are not the next one's first."""
    task, fresh, shared = draw(), make_model(), make_model()
    expected = fine_tune(fresh, task, adam(fresh))
    fine_tune(shared, task, torch.optim.SGD(shared.classifier.parameters(), lr=0.1))
    assert fine_tune(shared, task, adam(shared)) == expected


def test_evaluation_before_the_first_step_and_on_the_way():
    task, model = draw(), make_model()
    trajectory = fine_tune(model, task, adam(model), evaluate_at=(0, 5))
    assert list(trajectory.evaluations) == [0, 5, 12]
    assert trajectory.evaluations[0].loss > trajectory.evaluations[12].loss


def test_every_image_is_fetched_once(monkeypatch):
    """Nothing is decoded to find out how many classes a task has, nor again for its second candidate."""
    task, fetched = draw(30), []
    kind = type(task.batches)
    get = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda self, index: [get(self, index), fetched.append(index)][0])
    model, network = make_model(), make_network()
    run(learned(model, network, task), task)
    assert len(fetched) == 30 + len(task.evaluation)


def test_a_diverged_run_ends_early_and_changes_no_other():
    """Invariant 7."""
    task, model = draw(40), make_model()
    good, bad = make_network(trained=True), make_network(trained=True)
    bad.biases[-1].data[-1] = 12.0  # steps e^12 times too large
    first, broken, again = (run(learned(model, network, task), task) for network in (good, bad, good))
    assert first == again and not first.diverged
    assert broken.diverged and broken.num_steps == CHECK_INTERVAL and not broken.evaluations
    assert broken.training_loss == math.inf


def test_float16_gradients_do_not_vanish():
    """The loss is scaled up in float16, where gradients below 6e-8 are zero, and in nothing else."""
    task = draw(4)
    images = task.batches.pool.pixel_values
    faint = task.batches.pool._replace(pixel_values=images * 1e-7)
    task.batches.pool = faint
    autocast = lambda: torch.autocast("cpu", torch.float16)  # noqa: E731
    model = make_model()
    learner = ModelLearner(model, torch.optim.SGD(model.parameters(), lr=1e6), autocast=autocast)
    assert learner.scaler.is_enabled()
    learner.start(task.initial_state)
    before = model.encoder.weight.detach().clone()
    learner.step(task.batches[0])
    assert not torch.equal(model.encoder.weight, before)
    exact = ModelLearner(make_model(), adam(model), autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert not exact.scaler.is_enabled() and not ModelLearner(model, adam(model)).scaler.is_enabled()


def test_batch_norm_is_looked_after_for_the_learned_optimizer_alone():
    """Its momentum is in force while it trains, and gone for the optimizer that gets the model next."""
    tuned, plain = tiny_resnet(), tiny_resnet()
    tasks = make_tasks(tuned, horizon=Horizon(6, 6))
    task, network = tasks.draw(0, 0, 0), make_network(tuned, batch_norm_momentum=0.5)
    looked_after = run(learned(tuned, network, task), task)
    left_alone = run(learned(plain, make_network(plain), task), task)
    assert looked_after.training_loss == left_alone.training_loss  # statistics only matter in evaluations
    assert looked_after.evaluations != left_alone.evaluations
    assert fine_tune(tuned, task, adam(tuned)) == fine_tune(plain, task, adam(plain))
