"""Inner gradients are clipped as torch clips them, and can be differentiated."""

import pytest
import torch
from torch import nn

from hf_l3rs.tasks.unrolled import clip_to_norm


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_it_is_torchs(max_norm):
    params = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,))]
    for param in params:
        param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(param.numel()))
    grads = [param.grad.clone().requires_grad_() for param in params]
    clipped = clip_to_norm(grads, max_norm)
    nn.utils.clip_grad_norm_(params, max_norm)
    torch.testing.assert_close([grad.detach() for grad in clipped], [param.grad for param in params])
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(sum(c.sum() for c in clipped), grads))


def test_without_a_norm_nothing_is_done():
    grads = [torch.ones(2)]
    assert clip_to_norm(grads, None) is grads
