"""L3RS, a learned optimizer for fine-tuning pretrained vision models, for the Hugging Face stack."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


# Public name -> module. Imported on first use, so that `import hf_l3rs` costs nothing and loads no framework.
_MODULES = {
    "L3RS": "optimizer",
    "L3RSArtifact": "hub.pretrained",
    "L3RSCallback": "integration.callback",
    "L3RSConfig": "learned.config",
    "L3RSError": "errors",
    "L3RSNetwork": "learned.network",
    "L3RSTrainer": "integration.trainer",
    "LayerSpec": "learned.config",
    "describe_layers": "learned.layers",
}

__all__ = [
    "L3RS",
    "L3RSArtifact",
    "L3RSCallback",
    "L3RSConfig",
    "L3RSError",
    "L3RSNetwork",
    "L3RSTrainer",
    "LayerSpec",
    "describe_layers",
]

if TYPE_CHECKING:
    from hf_l3rs.errors import L3RSError
    from hf_l3rs.hub.pretrained import L3RSArtifact
    from hf_l3rs.integration.callback import L3RSCallback
    from hf_l3rs.integration.trainer import L3RSTrainer
    from hf_l3rs.learned.config import L3RSConfig, LayerSpec
    from hf_l3rs.learned.layers import describe_layers
    from hf_l3rs.learned.network import L3RSNetwork
    from hf_l3rs.optimizer import L3RS


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hf_l3rs")
    if name not in _MODULES:
        raise AttributeError(f"module 'hf_l3rs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_l3rs.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
