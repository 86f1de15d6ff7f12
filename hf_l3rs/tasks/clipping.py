"""Clipping of inner gradients by their norm, as a function that can be differentiated and mapped."""

from __future__ import annotations

from hf_l3rs.learned.arithmetic import FUNCTIONAL, Tensors


def clip_to_norm(grads: Tensors, max_norm: float | None) -> Tensors:
    """
    Returns gradients scaled down to a global norm, as `torch.nn.utils.clip_grad_norm_` scales them.

    Args:
        grads (`list[torch.Tensor]`): One a layer; never written.
        max_norm (`float`, *optional*): The norm; without it, the gradients come back as they are.
    """
    if max_norm is None:
        return grads
    share = (max_norm / (FUNCTIONAL.norms(grads).norm() + 1e-6)).clamp(max=1.0)
    return FUNCTIONAL.mul_(grads, [share] * len(grads))
