"""The set-ups that cannot work with L3RS, refused before training in one sentence that names the way out."""

from __future__ import annotations

import os

import torch
from torch import nn

from hf_l3rs.errors import UnsupportedSetupError


def is_sharded(param: torch.Tensor) -> bool:
    """Whether the tensor is a part of a layer, as FSDP2 and tensor parallelism make them."""
    return any(cls.__name__ == "DTensor" for cls in type(param).__mro__)


def refuse_parameter(name: str, param: torch.Tensor) -> None:
    """Refuses a parameter that is not the whole of a layer, as under FSDP, or not of real floating-point numbers."""
    if is_sharded(param) or name.endswith("_flat_param") or "_fsdp_wrapped_module" in name:
        raise UnsupportedSetupError(
            f"L3RS needs whole layers, but parameter {name!r} is sharded or flattened; use DDP in place of FSDP or "
            "tensor parallelism."
        )
    if not param.is_floating_point():
        raise UnsupportedSetupError(
            f"L3RS trains real floating-point parameters, but {name!r} is {param.dtype}; freeze it by "
            "requires_grad_(False), or convert it."
        )


def refuse_sharding(*active: str) -> None:
    """
    Refuses the `active` engines, of "DeepSpeed" and "FSDP", and those that Accelerate, which announces them by
    environment variables before anything is prepared, will use.
    """
    for engine in ("DeepSpeed", "FSDP"):
        announced = os.environ.get(f"ACCELERATE_USE_{engine.upper()}", "false").lower() in ("true", "1")
        if announced or engine in active:
            raise UnsupportedSetupError(
                f"L3RS does not support {engine}, which would replace the optimizer or cut layers into shards; run "
                "with DDP, that is without it (`accelerate launch --multi_gpu` or `torchrun`)."
            )


def refuse_sparse_modules(model: nn.Module) -> None:
    """Refuses embeddings in `model` that are not frozen and will have sparse gradients."""
    for name, module in model.named_modules():
        is_sparse = isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
        if is_sparse and any(param.requires_grad for param in module.parameters()):
            raise UnsupportedSetupError(
                f"L3RS does not support sparse gradients, which the embedding {name or type(module).__name__!r} will "
                "have; build it with sparse=False, or freeze it."
            )


def refuse_sparse_gradients(params: list[torch.Tensor]) -> None:
    """Refuses gradients that a model without a sparse module has made sparse all the same."""
    if any(param.grad is not None and param.grad.is_sparse for param in params):
        raise UnsupportedSetupError(
            "L3RS does not support sparse gradients, got one; build the embedding with sparse=False."
        )
