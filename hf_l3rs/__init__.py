"""L3RS, a learned optimizer for fine-tuning pretrained vision models, for the Hugging Face stack."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


# Modules and their public names. Imported on first use, so that `import hf_l3rs` costs nothing and loads no framework.
_PUBLIC = {
    "errors": ("L3RSError",),
    "evaluation.baselines": ("Contender",),
    "evaluation.job": ("EvaluationArguments", "EvaluationJob"),
    "hub.artifact": ("L3RSArtifact",),
    "meta.meta_arguments": ("L3RSArguments", "MetaTrainingArguments", "build_network"),
    "meta.meta_trainer": ("MetaTrainer",),
    "meta.outer": ("OuterConfig",),
    "optimizer.config": ("L3RSConfig", "LayerSpec"),
    "optimizer.directions": ("Direction",),
    "optimizer.fit": ("Fit",),
    "optimizer.layers": ("describe_layers",),
    "optimizer.network": ("L3RSNetwork",),
    "optimizer.optimizer": ("L3RS",),
    "settings": ("parse_arguments",),
    "tasks.distribution": ("TaskMixture", "build_tasks"),
    "tasks.inner_loop": ("fine_tune",),
    "tasks.task_arguments": ("DatasetArguments", "ModelArguments", "TaskArguments"),
    "trainer.callback": ("L3RSCallback",),
    "trainer.l3rs_trainer": ("L3RSFactory", "L3RSTrainer"),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from hf_l3rs.errors import L3RSError as L3RSError
    from hf_l3rs.evaluation.baselines import Contender as Contender
    from hf_l3rs.evaluation.job import EvaluationArguments as EvaluationArguments, EvaluationJob as EvaluationJob
    from hf_l3rs.hub.artifact import L3RSArtifact as L3RSArtifact
    from hf_l3rs.meta.meta_arguments import (
        L3RSArguments as L3RSArguments,
        MetaTrainingArguments as MetaTrainingArguments,
        build_network as build_network,
    )
    from hf_l3rs.meta.meta_trainer import MetaTrainer as MetaTrainer
    from hf_l3rs.meta.outer import OuterConfig as OuterConfig
    from hf_l3rs.optimizer.config import L3RSConfig as L3RSConfig, LayerSpec as LayerSpec
    from hf_l3rs.optimizer.directions import Direction as Direction
    from hf_l3rs.optimizer.fit import Fit as Fit
    from hf_l3rs.optimizer.layers import describe_layers as describe_layers
    from hf_l3rs.optimizer.network import L3RSNetwork as L3RSNetwork
    from hf_l3rs.optimizer.optimizer import L3RS as L3RS
    from hf_l3rs.settings import parse_arguments as parse_arguments
    from hf_l3rs.tasks.distribution import TaskMixture as TaskMixture, build_tasks as build_tasks
    from hf_l3rs.tasks.inner_loop import fine_tune as fine_tune
    from hf_l3rs.tasks.task_arguments import (
        DatasetArguments as DatasetArguments,
        ModelArguments as ModelArguments,
        TaskArguments as TaskArguments,
    )
    from hf_l3rs.trainer.callback import L3RSCallback as L3RSCallback
    from hf_l3rs.trainer.l3rs_trainer import L3RSFactory as L3RSFactory, L3RSTrainer as L3RSTrainer


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hf_l3rs")
    if name not in _MODULES:
        raise AttributeError(f"module 'hf_l3rs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_l3rs.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
