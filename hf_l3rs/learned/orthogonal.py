"""Orthogonalised matrices, for the direction `"muon"` (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import torch

from hf_l3rs.learned.arithmetic import Tensors


# The quintic iteration of Muon's authors: five rounds bring singular values from [0.002, 1] to about [0.7, 1.2].
COEFFICIENTS, NUM_ROUNDS = (3.4445, -4.7750, 2.0315), 5

# Added to the norm that a matrix is divided by first, so that a zero matrix stays zero.
EPS = 1e-7


def orthogonalise(tensors: Tensors) -> Tensors:
    """
    Brings the singular values of matrices near one. Matrices of one shape go through the iteration together.

    Args:
        tensors (`list[torch.Tensor]`):
            Matrices, and kernels of shape `(out, in, ...)`, which count as matrices of `out` rows. Vectors and
            scalars, which have no singular values, come back as they are.

    Returns:
        `list[torch.Tensor]`: New tensors of the same shapes.
    """
    results = list(tensors)
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.ndim > 1 and tensor.numel():
            by_shape.setdefault((len(tensor), tensor[0].numel()), []).append(index)
    for indices in by_shape.values():
        stacked = torch.stack([tensors[index].flatten(1) for index in indices])
        for index, matrix in zip(indices, _newton_schulz(stacked).unbind()):
            results[index] = matrix.view_as(tensors[index])
    return results


def _newton_schulz(matrices: torch.Tensor) -> torch.Tensor:
    """X ← a X + (b A + c A²) X with A = X Xᵀ, on matrices of shape `(num_matrices, rows, columns)`."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]  # A is then the larger of the two products
    x = matrices.mT if is_tall else matrices
    # + the tiniest number: the root of zero has no derivative
    norms = (x.square().sum(dim=(1, 2), keepdim=True) + torch.finfo(x.dtype).tiny).sqrt()
    x = x / (norms + EPS)
    for _ in range(NUM_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).contiguous()
