"""A run that can be differentiated is the run that ships, and can be taken up anywhere."""

import pytest
import torch

from hf_l3rs.meta.evolution import rollout
from hf_l3rs.tasks.distribution import Horizon
from hf_l3rs.tasks.inner_loop import run
from hf_l3rs.tasks.pools import Batch
from hf_l3rs.tasks.unrolled import UnrolledLearner
from tests.meta.problems import make_model, make_network, make_tasks
from tests.tiny import tiny_resnet, tiny_vit


NUM_STEPS = 6


def make_learner(model, network, **options):
    return UnrolledLearner(model, network, network.to_vector().requires_grad_(), NUM_STEPS, **options)


def draw(model):
    return make_tasks(model, horizon=Horizon(NUM_STEPS, NUM_STEPS)).draw(0, 0, 0)


def test_the_gradient_is_that_of_finite_differences():
    """Of a whole run of a small model in float64, through features, averages and inner gradients."""
    model = make_model().double()
    network = make_network(model, trained=True).double()
    task = draw(model)
    for name in ("batches", "evaluation"):
        pool = getattr(task, name).pool
        getattr(task, name).pool = pool._replace(pixel_values=pool.pixel_values.double())

    def end(vector):
        learner = UnrolledLearner(model, network, vector, NUM_STEPS, feature_gradient=True)
        run(learner, task)
        return learner.evaluation_losses[-1]

    vector = network.to_vector().double().requires_grad_()
    (gradient,) = torch.autograd.grad(end(vector), vector)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction, h = torch.randn(vector.shape, generator=generator, dtype=torch.float64), 1e-5
        difference = (end((vector + h * direction).detach()) - end((vector - h * direction).detach())) / (2 * h)
        torch.testing.assert_close(gradient @ direction, difference.detach(), rtol=1e-4, atol=1e-9)


def test_a_run_taken_up_on_the_way_ends_as_if_it_had_gone_on():
    """Running statistics, averages and dropout included."""
    for model in (make_model(dropout=0.3), tiny_resnet()):
        network = make_network(model, trained=True)
        task, learner = draw(model), make_learner(model, network)
        learner.start(task.initial_state)
        for index in range(3):
            learner.step(task.batches[index])
        snapshot, ends = learner.snapshot(), []
        for _ in range(2):
            learner.resume(snapshot)
            for index in range(3, NUM_STEPS):
                learner.step(task.batches[index])
            ends.append([*(param.detach() for param in learner.params), *learner.fixed.values()])
            assert len(learner.losses) == 3
        assert all(torch.equal(one, two) for one, two in zip(*ends))


def test_the_models_own_weights_stay():
    model = tiny_resnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = draw(model)
    run(make_learner(model, make_network(model)), task)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("second_order", [True, False])
def test_order_changes_the_gradient_but_not_the_run(second_order):
    model, network = make_model(), make_network(trained=True)
    learner = make_learner(model, network, second_order=second_order)
    trajectory = run(learner, draw(model))
    assert learner.losses[0].requires_grad == second_order
    assert trajectory == run(make_learner(model, network), draw(model))


def test_attention_is_differentiated_twice():
    """Its fused kernels, which a plain run takes, cannot be."""
    model = tiny_vit()
    network, size = make_network(model), model.config.image_size
    images = torch.randn(4, model.config.num_channels, size, size, generator=torch.Generator().manual_seed(0))
    learner = make_learner(model, network)
    learner.start(model.state_dict())
    for _ in range(2):
        learner.step(Batch(images, torch.tensor([0, 1, 0, 1])))
    (gradient,) = torch.autograd.grad(learner.losses[-1], learner.vector)
    assert bool(gradient.any()) and bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("keep_graph", [True, False])
def test_it_is_the_run_that_ships(max_grad_norm, keep_graph):
    """Clipping included, with a graph and without."""
    model, task = make_model(dropout=0.3), draw(make_model())
    network = make_network(model, trained=True, max_grad_norm=max_grad_norm)
    trajectory = run(make_learner(model, network, keep_graph=keep_graph), task)
    plain = rollout(model, network, task)
    assert trajectory.evaluations[NUM_STEPS].loss == pytest.approx(plain.loss, rel=1e-5)
    free = rollout(model, make_network(model, trained=True), task)
    assert (plain.loss == free.loss) == (max_grad_norm is None)


def test_batch_norm_is_looked_after_as_in_the_run_that_ships():
    model = tiny_resnet()
    task, network = draw(model), make_network(model, batch_norm_momentum=0.5)
    trajectory = run(make_learner(model, network), task)
    assert trajectory.evaluations[NUM_STEPS].loss == pytest.approx(rollout(model, network, task).loss, rel=1e-4)
    assert rollout(model, network, task).loss != rollout(model, make_network(model), task).loss
