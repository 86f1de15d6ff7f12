"""Orthogonalised matrices: singular values near one, whatever they were, and nothing made of nothing."""

import pytest
import torch

from hf_l3rs.optimizer.directions import orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4), (6, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_come_near_one(shape, scale):
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (result,) = orthogonalise([matrix])
    values = torch.linalg.svdvals(result.flatten(1))
    assert result.shape == matrix.shape and values.min() > 0.5 and values.max() < 1.3


def test_what_is_no_matrix_stays_and_zero_stays_zero():
    vector, zeros = torch.arange(3.0), torch.zeros(4, 2)
    same, still = orthogonalise([vector, zeros])
    assert same is vector and torch.equal(still, zeros)


def test_shapes_do_not_mix():
    """Matrices of one shape share the iteration, and a kernel may be of a matrix's."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in ((3, 4), (2, 5), (3, 2, 2), (3, 4))]
    for together, tensor in zip(orthogonalise(tensors), tensors):
        torch.testing.assert_close(together, orthogonalise([tensor])[0])


def test_gradients_go_through_zero_too():
    matrices = torch.stack([torch.zeros(2, 3), torch.ones(2, 3)]).requires_grad_()
    total = sum(tensor.square().sum() for tensor in orthogonalise(list(matrices)))
    (gradient,) = torch.autograd.grad(total, matrices)
    assert bool(torch.isfinite(gradient).all())
