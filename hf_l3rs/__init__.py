"""L3RS, a learned optimizer for fine-tuning pretrained vision models, for the Hugging Face stack."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


# Public name -> module. Imported on first use, so that `import hf_l3rs` costs nothing and loads no framework.
_MODULES = {
    "L3RS": "optimizer",
    "L3RSCallback": "callback",
    "L3RSConfig": "config",
    "L3RSError": "errors",
    "L3RSNetwork": "network",
    "L3RSTrainer": "trainer",
    "LayerSpec": "config",
    "describe_layers": "layers",
}

__all__ = [
    "L3RS",
    "L3RSCallback",
    "L3RSConfig",
    "L3RSError",
    "L3RSNetwork",
    "L3RSTrainer",
    "LayerSpec",
    "describe_layers",
]

if TYPE_CHECKING:
    from hf_l3rs.callback import L3RSCallback
    from hf_l3rs.config import L3RSConfig, LayerSpec
    from hf_l3rs.errors import L3RSError
    from hf_l3rs.layers import describe_layers
    from hf_l3rs.network import L3RSNetwork
    from hf_l3rs.optimizer import L3RS
    from hf_l3rs.trainer import L3RSTrainer


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hf_l3rs")
    if name not in _MODULES:
        raise AttributeError(f"module 'hf_l3rs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_l3rs.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
