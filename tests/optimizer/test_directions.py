"""Directions: torch's own updates, without writing gradients, and finite where there is nothing to follow."""

import pytest
import torch

from hf_l3rs.optimizer.arithmetic import FUNCTIONAL, IN_PLACE
from hf_l3rs.optimizer.config import L3RSConfig, LayerSpec
from hf_l3rs.optimizer.directions import DIRECTIONS


CONFIG = L3RSConfig(
    (LayerSpec("weight", (2, 3), "linear_down.weight", ""),),
    directions=tuple(DIRECTIONS),
    adam_betas=(0.8, 0.95),
    adam_eps=1e-3,
    momentum=0.7,
)
SHAPES = [(3, 4), (5,), (), (1,), (0, 2), (4, 3), (2, 3, 2, 1)]


def run(name, gradients, config=CONFIG, arithmetic=IN_PLACE):
    """The direction's outputs for a series of gradients of one set of layers, and its buffers."""
    shapes = [g.shape for g in gradients[0]]
    dtype = gradients[0][0].dtype
    buffers = {key: [torch.zeros(shape, dtype=dtype) for shape in shapes] for key in DIRECTIONS[name].buffers}
    outputs = []
    for k, grads in enumerate(gradients, start=1):
        steps = torch.full((len(shapes),), float(k), dtype=torch.float64)
        directions, updated = DIRECTIONS[name].update(config, grads, buffers, steps, arithmetic)
        assert updated.keys() == buffers.keys()
        buffers = updated
        outputs.append([d.clone() for d in directions])
    return outputs, buffers


def random_gradients(num_steps=10, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES] for _ in range(num_steps)]


class Muon(torch.optim.Optimizer):
    """Torch's own takes no vectors and computes in bfloat16, so this one, by singular values, stands in for it."""

    def __init__(self, params, beta):
        super().__init__(params, {"beta": beta})

    @torch.no_grad()
    def step(self):
        for param in self.param_groups[0]["params"]:
            beta, average = self.defaults["beta"], self.state[param].setdefault("average", torch.zeros_like(param))
            average.lerp_(param.grad, 1 - beta)
            ahead = beta * average + (1 - beta) * param.grad
            param.sub_(singular_values_near_one(ahead) if param.ndim > 1 and param.numel() else ahead)


def singular_values_near_one(matrix):
    left, values, right = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
    values = values / (values.norm() + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left @ values.diag() @ right).view_as(matrix)


class Signum(torch.optim.Optimizer):
    """Of arXiv 1802.04434, algorithm 2; torch has none."""

    def __init__(self, params, beta):
        super().__init__(params, {"beta": beta})

    @torch.no_grad()
    def step(self):
        for param in self.param_groups[0]["params"]:
            beta, m = self.defaults["beta"], self.state[param].get("m", torch.zeros_like(param))
            self.state[param]["m"] = m = beta * m + (1 - beta) * param.grad
            param.sub_(m.sign())


class AdaBelief(torch.optim.Optimizer):
    """Of arXiv 2010.07468, algorithm 2, without the ε within s; torch has none."""

    def __init__(self, params, betas, eps):
        super().__init__(params, {"betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self):
        beta1, beta2 = self.defaults["betas"]
        for param in self.param_groups[0]["params"]:
            g, state = param.grad, self.state[param]
            t, m, s = state.get("own", (0, torch.zeros_like(g), torch.zeros_like(g)))
            t, m = t + 1, beta1 * m + (1 - beta1) * g
            s = beta2 * s + (1 - beta2) * (g - m) ** 2
            state["own"] = t, m, s
            param.sub_(m / (1 - beta1**t) / ((s / (1 - beta2**t)).sqrt() + self.defaults["eps"]))


TORCH_OPTIMIZERS = {
    "sign": lambda params: Signum(params, beta=0.8),
    "adabelief": lambda params: AdaBelief(params, betas=(0.8, 0.95), eps=1e-3),
    "muon": lambda params: Muon(params, beta=0.8),
    "adam": lambda params: torch.optim.Adam(params, lr=1.0, betas=(0.8, 0.95), eps=1e-3),
    "sgd": lambda params: torch.optim.SGD(params, lr=1.0),
    "rmsprop": lambda params: torch.optim.Adam(params, lr=1.0, betas=(0.0, 0.95), eps=1e-3),
    # torch adds the gradients up where the direction averages them: a factor that the normalisation removes
    "momentum": lambda params: torch.optim.SGD(params, lr=1 - 0.7, momentum=0.7),
}


def test_every_direction_has_an_oracle():
    assert TORCH_OPTIMIZERS.keys() == DIRECTIONS.keys()


@pytest.mark.parametrize("arithmetic", [IN_PLACE, FUNCTIONAL], ids=["in place", "functional"])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_direction_is_torchs_update(name, arithmetic):
    gradients = random_gradients()
    params = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in SHAPES]
    optimizer = TORCH_OPTIMIZERS[name](params)
    for directions, grads in zip(run(name, gradients, arithmetic=arithmetic)[0], gradients):
        for param, grad in zip(params, grads):
            param.data.zero_()
            param.grad = grad.clone()
        optimizer.step()
        for direction, param in zip(directions, params):
            torch.testing.assert_close(direction, -param.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_gradients_are_not_written(name):
    """Invariant 1."""
    gradients = random_gradients()
    before = [[g.clone() for g in grads] for grads in gradients]
    run(name, gradients)
    assert all(torch.equal(g, old) for grads, olds in zip(gradients, before) for g, old in zip(grads, olds))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("eps", [1e-8, 1e-30])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_zero_gradients_give_zero_directions(name, eps, dtype):
    """Invariant 2."""
    zeros = [[torch.zeros(shape, dtype=dtype) for shape in SHAPES] for _ in range(3)]
    outputs, buffers = run(name, zeros, CONFIG.replace(adam_eps=eps))
    assert all((d == 0).all() for directions in outputs for d in directions)
    assert all((value == 0).all() for values in buffers.values() for value in values)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_layers_are_apart(name):
    """A layer's direction depends neither on the other layers nor on how many updates those have had."""
    gradients = random_gradients()
    together, _ = run(name, gradients)
    for index in range(len(SHAPES)):
        alone, _ = run(name, [[grads[index]] for grads in gradients])
        assert all(torch.equal(one[0], many[index]) for one, many in zip(alone, together))


def test_each_layer_has_its_own_bias_correction():
    ones = [torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
    buffers = {key: [torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
               for key in DIRECTIONS["adam"].buffers}  # fmt: skip
    steps = torch.tensor([1.0, 1e6], dtype=torch.float64)  # a layer's first update, and one long after
    (first, late), _ = DIRECTIONS["adam"].update(CONFIG, ones, buffers, steps, IN_PLACE)
    torch.testing.assert_close(first, late, rtol=1e-12, atol=1e-12)
