"""One step in two forms: in place, and as a function that can be differentiated."""

import pytest
import torch
from torch import nn

from hf_l3rs.optimizer.directions import DIRECTIONS, FUNCTIONAL, IN_PLACE
from hf_l3rs.optimizer.layers import describe_layers, match_layers
from hf_l3rs.optimizer.step import LayerStack
from tests.tiny import trained_network


NUM_STEPS = 12


def make_layers(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 4)).to(dtype)
    return model, [parameter.detach().clone() for parameter in model.parameters()]


def make_gradients(params, k, is_zero=()):
    generator = torch.Generator().manual_seed(k)
    grads = [0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in params]
    return [torch.zeros_like(grad) if index in is_zero else grad for index, grad in enumerate(grads)]


class Run:
    """A run of some steps of one stack, by one arithmetic."""

    def __init__(self, arithmetic, dtype=torch.float64, **config):
        self.model, self.params = make_layers(dtype)
        self.network = trained_network(self.model, **{"directions": tuple(DIRECTIONS), **config}).to(dtype)
        self.arithmetic = arithmetic
        self.stack = LayerStack(self.network.config, self.params)
        self.weights, _ = match_layers(describe_layers(self.model.named_parameters()), self.network.config.layers)
        self.state = self.stack.initial_state(self.params)

    def step(self, k, grads, loss=1.0, vector=None):
        network = self.network.for_layers(self.weights, self.stack.sqrt_numel, vector)
        loss = None if loss is None else torch.as_tensor(loss)
        self.params, self.state, self.decision = self.stack.step(
            network,
            self.params,
            grads,
            self.state,
            loss=loss,
            k=k,
            num_training_steps=NUM_STEPS,
            arithmetic=self.arithmetic,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functional_equals_in_place(dtype):
    """Invariant 3: parameters and state, to 1e-6 and in float64 to 1e-12; zero and broken gradients included."""
    runs = [Run(form, dtype) for form in (IN_PLACE, FUNCTIONAL)]
    for k in range(1, NUM_STEPS + 1):
        grads = make_gradients(runs[0].params, k, is_zero=(1,) if k < 4 else ())
        if k == 6:
            grads[2][0] = torch.nan
        before = [grad.clone() for grad in grads]
        for run in runs:
            run.step(k, grads, loss=1 / k)
        assert all(torch.equal(grad.nan_to_num(), old.nan_to_num()) for grad, old in zip(grads, before))
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    first, second = (
        [*run.params, run.state.ema, run.state.steps, *(t for own in run.state.buffers.values() for t in own)]
        for run in runs
    )
    for one, two in zip(first, second):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


def test_functional_leaves_what_it_is_given():
    run = Run(FUNCTIONAL)
    grads = make_gradients(run.params, 1)
    given = [*run.params, *grads, run.state.ema, run.state.steps, *run.state.buffers["adam_exp_avg"]]
    before = [tensor.clone() for tensor in given]
    run.step(1, grads)
    assert all(torch.equal(one, two) for one, two in zip(given, before))


def test_in_place_writes_the_memory_that_is_there():
    run = Run(IN_PLACE)
    kept = [*run.params, run.state.ema, run.state.steps, *run.state.buffers["adam_exp_avg"]]
    run.step(1, make_gradients(run.params, 1))
    now = [*run.params, run.state.ema, run.state.steps, *run.state.buffers["adam_exp_avg"]]
    assert all(one is two for one, two in zip(kept, now))


def test_gradients_of_a_run_are_those_of_finite_differences():
    """In float64, through several steps whose gradients depend on the parameters, a layer without any included."""

    def end(vector):
        run = Run(FUNCTIONAL)
        for k in range(1, 5):
            inputs = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
            params = dict(zip(dict(run.model.named_parameters()), [p.requires_grad_() for p in run.params]))
            loss = torch.func.functional_call(run.model, {**params, "3.bias": params["3.bias"].detach()}, inputs)
            loss = loss.square().mean()
            create = vector.requires_grad
            names = [name for name in params if name != "3.bias"]
            grads = dict(zip(names, torch.autograd.grad(loss, [params[n] for n in names], create_graph=create)))
            run.step(k, [grads.get(name, torch.zeros_like(params[name])) for name in params], loss, vector)
            if not create:
                run.params = [p.detach() for p in run.params]
        return sum(p.square().sum() for p in run.params)

    vector = Run(FUNCTIONAL).network.to_vector().double().requires_grad_()
    (gradient,) = torch.autograd.grad(end(vector), vector)
    assert torch.isfinite(gradient).all()
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        direction = torch.randn(vector.shape, generator=generator, dtype=torch.float64)
        h = 1e-5
        with torch.enable_grad():
            ends = [end((vector + sign * h * direction).detach()) for sign in (1, -1)]
        difference = (ends[0] - ends[1]).detach() / (2 * h)
        torch.testing.assert_close(gradient @ direction, difference, rtol=1e-5, atol=1e-8)
