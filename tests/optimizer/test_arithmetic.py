"""Both arithmetics compute the same; the functional one is differentiable at zero."""

import pytest
import torch

from hf_l3rs.optimizer.arithmetic import FUNCTIONAL, IN_PLACE


def lists(count=3):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3), (4,), ()]
    return [[torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(count)]


CASES = {
    "add_": lambda form, x, y, z: form.add_(x, 2.0),
    "add_ one a layer": lambda form, x, y, z: form.add_(x, [1.0, 2.0, 3.0]),
    "mul_": lambda form, x, y, z: form.mul_(x, y),
    "lerp_": lambda form, x, y, z: form.lerp_(x, y, 0.3),
    "lerp_ with tensors": lambda form, x, y, z: form.lerp_(x, y, z),
    "addcmul_": lambda form, x, y, z: form.addcmul_(x, y, z, value=-0.5),
    "reciprocal_": lambda form, x, y, z: form.reciprocal_(x),
    "sqrt": lambda form, x, y, z: form.sqrt(x),
    "norms": lambda form, x, y, z: list(form.norms(x)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_forms_agree(name):
    for one, two in zip(CASES[name](IN_PLACE, *lists()), CASES[name](FUNCTIONAL, *lists())):
        torch.testing.assert_close(one, two, rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_functional_writes_nothing(name):
    given = lists()
    CASES[name](FUNCTIONAL, *given)
    assert all(torch.equal(x, y) for one, two in zip(given, lists()) for x, y in zip(one, two))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_square_roots_and_norms_have_derivatives_at_zero(dtype):
    """Of √(x²), as Adam's second moment has it, and of a norm."""
    x = torch.zeros(3, dtype=dtype, requires_grad=True)
    total = FUNCTIONAL.sqrt([x * x])[0].sum() + FUNCTIONAL.norms([x]).sum()
    (gradient,) = torch.autograd.grad(total, x)
    assert torch.equal(gradient, torch.zeros_like(x))
