"""
More rivals of the stored tables, from the packages of their authors. Settings name them by their dotted paths:

    baselines: [recipes.evidence.rivals.prodigy, recipes.evidence.rivals.lamb_cosine]

They need `pip install dadaptation dog-optimizer prodigyopt pytorch-optimizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_l3rs.evaluation.baselines import ADAPTIVE_RATES, SGD_RATES, Baseline, Make, of_parameters
from hf_l3rs.evaluation.rivals import Combined, imported
from hf_l3rs.optimizer.layers import describe_layers, named_trainable_parameters
from hf_l3rs.tasks.inner_loop import ModelLearner
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch


DOG, LARGE_BATCH = "dog-optimizer", "pytorch-optimizer"

# LDoG's first step in norms of a layer, by whether the model has batch norm: what its authors recommend.
LDOG_FIRST_STEPS = {False: 1e-6, True: 1e-4}

# Learning rate of the head, in that of the rest.
HEAD_RATIO = 10.0

# Of Adam's and of SGD's update in ATMO.
ATMO_WEIGHTS = (0.5, 0.5)


def packaged(package: str, module: str, name: str, **settings: Any) -> Make:
    """Returns what makes optimizers of a class that another package has, imported when the first is made."""
    return lambda model, rate: of_parameters(imported(package, module, name), **settings)(model, rate)


def make_ldog(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Returns layer-wise DoG (Ivgi et al., arXiv 2302.12022) with the first step that its authors recommend."""
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in model.modules())
    first_step = LDOG_FIRST_STEPS[has_batch_norm]
    return of_parameters(imported(DOG, "dog", "LDoG"), reps_rel=first_step)(model, learning_rate)


class AveragedLearner(ModelLearner):
    """One model and an optimizer, evaluated at the average of its iterates that DoG's authors take."""

    averager: Any

    def start(self, initial_state: State) -> None:
        super().start(initial_state)
        self.averager = imported(DOG, "dog", "PolynomialDecayAverager")(self.model)

    def step(self, batch: Batch) -> torch.Tensor:
        loss = super().step(batch)
        self.averager.step()
        return loss

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the average in the model."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.averager.averaged_model.state_dict())
        yield
        self.model.load_state_dict(before)


def make_atmo(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """
    Returns ATMO's fixed mixture of Adam and SGD (Landro et al., doi 10.3390/a14060186). Neither direction depends on
    the weights, so two steps one after another are their sum.
    """
    of_adam, of_sgd = ATMO_WEIGHTS
    adam = of_parameters(torch.optim.Adam)(model, of_adam * learning_rate)
    sgd = of_parameters(torch.optim.SGD, momentum=0.9)(model, of_sgd * learning_rate)
    return Combined([adam, sgd], weights=list(ATMO_WEIGHTS))


def make_adam_head_10x(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Returns Adam with ten times the rate for the head."""
    named = named_trainable_parameters(model)
    parts: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for layer, (_, parameter) in zip(describe_layers(named), named):
        parts[layer.is_head].append(parameter)
    rates = {False: learning_rate, True: HEAD_RATIO * learning_rate}
    return torch.optim.Adam([{"params": part, "lr": rates[is_head]} for is_head, part in parts.items() if part])


prodigy = Baseline("Prodigy", packaged("prodigyopt", "prodigyopt", "Prodigy"), "cosine", (1.0,), "prodigyopt")
d_adapt_adam = Baseline(
    "DAdaptAdam", packaged("dadaptation", "dadaptation", "DAdaptAdam"), "cosine", (1.0,), "dadaptation"
)
ldog = Baseline("LDoG", make_ldog, learning_rates=(1.0,), package=DOG, learner=AveragedLearner)

lamb_constant = Baseline("LAMB constant", packaged(LARGE_BATCH, "pytorch_optimizer", "Lamb"), package=LARGE_BATCH)
lamb_cosine = replace(lamb_constant, name="LAMB cosine", schedule="cosine")
lamb_linear = replace(lamb_constant, name="LAMB linear", schedule="linear")

lars_constant = Baseline(
    "LARS constant",
    packaged(LARGE_BATCH, "pytorch_optimizer", "LARS", trust_coefficient=0.1),
    learning_rates=SGD_RATES,
    package=LARGE_BATCH,
)
lars_cosine = replace(lars_constant, name="LARS cosine", schedule="cosine")
lars_linear = replace(lars_constant, name="LARS linear", schedule="linear")

atmo_constant = Baseline("ATMO constant", make_atmo, learning_rates=tuple(rate * 2 for rate in ADAPTIVE_RATES))
atmo_cosine = replace(atmo_constant, name="ATMO cosine", schedule="cosine")
atmo_linear = replace(atmo_constant, name="ATMO linear", schedule="linear")

adam_cosine_head_10x = Baseline("Adam cosine, head 10x", make_adam_head_10x, "cosine")
