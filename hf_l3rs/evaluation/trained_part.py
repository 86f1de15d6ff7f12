"""What of a model a baseline trains."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_l3rs.optimizer.layers import describe_layers, named_trainable_parameters


class TrainedPart:
    """
    The parameters that a baseline trains, and what is known of them.

    Args:
        model (`nn.Module`): Its parameters that require no gradient are left out.
        head_only (`bool`, *optional*, defaults to `False`): Whether only the head is trained.
        head_ratio (`float`, *optional*, defaults to 1.0): Learning rate of the head, in that of the rest.
    """

    def __init__(self, model: nn.Module, head_only: bool = False, head_ratio: float = 1.0) -> None:
        named = named_trainable_parameters(model)
        self._layers = [
            (layer, parameter)
            for layer, (_, parameter) in zip(describe_layers(named), named)
            if layer.is_head or not head_only  # in the model's order
        ]
        self.head_ratio = head_ratio
        self.has_batch_norm = any(isinstance(module, _BatchNorm) for module in model.modules())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return [parameter for _, parameter in self._layers]

    @property
    def hidden_weights(self) -> list[nn.Parameter]:
        """Weights of linear layers and convolutions between embeddings and head."""
        return [
            parameter
            for layer, parameter in self._layers
            if parameter.ndim > 1 and layer.role != "embedding" and not layer.is_head
        ]

    def groups(self, learning_rate: float) -> list[nn.Parameter] | list[dict[str, Any]]:
        """Returns what a torch optimizer takes: the parameters, or trunk and head with a rate each."""
        if self.head_ratio == 1:
            return self.parameters
        trunk = [parameter for layer, parameter in self._layers if not layer.is_head]
        head = [parameter for layer, parameter in self._layers if layer.is_head]
        return [
            {"params": trunk, "lr": learning_rate},
            {"params": head, "lr": learning_rate * self.head_ratio},
        ]
