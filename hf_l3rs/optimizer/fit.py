"""How well an L3RS fits a model: which share of what is trained are layers that it was meta-trained for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.config import L3RSConfig, LayerSpec
from hf_l3rs.optimizer.layers import ROLE_PREFIX, match_layers


# Below this share of the parameters an L3RS is another model's.
MINIMUM_FIT = 0.5

# How a layer is known. What is unknown takes the mean embedding of its role, or of all layers.
KINDS = ("name", "structure", "role", "unknown")

# The reference whose steps carry over between widths, so that a role is all that need be known of a layer.
CARRIES_OVER = "relative"

# What the setting `trainable: lora:N` adapts.
_ADAPTED = ("query", "value", "conv")


class LayerFit(NamedTuple):
    """A layer of a model, and how it is known."""

    layer: LayerSpec
    kind: str  # one of KINDS

    @property
    def is_known(self) -> bool:
        return self.kind != "unknown"


@dataclass(frozen=True)
class Fit:
    """How well an L3RS fits what is trained."""

    layers: tuple[LayerFit, ...]  # in the model's order

    @property
    def counts(self) -> dict[str, int]:
        """How many layers are known in each way; ways that none is known in are left out."""
        kinds = [each.kind for each in self.layers]
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}

    @property
    def share(self) -> float:
        """The share of parameters, in [0, 1], in known layers; a head counts only where nothing else is trained."""
        sizes = [(each.is_known, math.prod(each.layer.shape)) for each in self._body or self.layers]
        total = sum(size for _, size in sizes)
        return sum(size for is_known, size in sizes if is_known) / total if total else 1.0

    @property
    def is_full(self) -> bool:
        """Whether every layer is known."""
        return not self.misfits

    @property
    def misfits(self) -> list[str]:
        """The names of the layers that are not known."""
        return [each.layer.name for each in self.layers if not each.is_known]

    def describe(self) -> str:
        """Returns the figures in one line, to come after the name of the L3RS: `"fits all 3 layers (100 % of ..."`."""
        total, misfits = len(self.layers), len(self.misfits)
        fitting = f"{total - misfits} of {total}" if misfits else f"all {total}"
        ways = ", ".join(f"{count} {'' if kind == 'unknown' else 'by '}{kind}" for kind, count in self.counts.items())
        scope = ", head aside" if 0 < len(self._body) < total else ""
        percent = math.floor(1000 * self.share) / 10  # rounded down: 99.96 % is not 100 %
        return f"fits {fitting} layers ({percent:g} % of the parameters{scope}): {ways}"

    @property
    def _body(self) -> list[LayerFit]:
        return [each for each in self.layers if not each.layer.is_head]


def measure_fit(layers: Sequence[LayerSpec], config: L3RSConfig) -> Fit:
    """Measures how well an L3RS of this configuration fits a model with these trained layers."""
    weights, rules = match_layers(layers, config.layers)
    sources = weights.argmax(dim=1).tolist()
    heads = [known for known in config.layers if known.is_head and not known.name.startswith(ROLE_PREFIX)]
    fits = []
    for layer, rule, source in zip(layers, rules, sources):
        kind = "unknown"
        if rule in ("name", "rename"):
            kind = "name" if _has_same_shape(layer, config.layers[source]) else "unknown"
        elif rule == "structure" or (rule == "role" and config.step_reference == CARRIES_OVER):
            kind = rule
        elif rule == "role_mean" and layer.is_head:  # another name; of a head the role and the fan-in matter
            kin = [known for known in heads if known.role == layer.role]
            kind = "structure" if kin and all(_has_same_shape(layer, known) for known in kin) else "unknown"
        fits.append(LayerFit(layer, kind))
    return Fit(tuple(fits))


def _has_same_shape(layer: LayerSpec, known: LayerSpec) -> bool:
    """Whether two layers have the same shape; of heads up to the number of classes."""
    first = 1 if layer.is_head else 0
    return layer.shape[first:] == known.shape[first:]


def refuse_misfit(fit: Fit, minimum: float) -> None:
    """Raises [`~hf_l3rs.errors.BindingError`] where less than `minimum` of the parameters is in known layers."""
    if fit.share < minimum:
        raise BindingError(
            f"This L3RS {fit.describe()}; that is less than minimum_fit={minimum:g}; {_ways_out(fit, minimum)}pass "
            "minimum_fit=0 to go on all the same."
        )


def _ways_out(fit: Fit, minimum: float) -> str:
    """What else works for these layers."""
    lora = [each.layer for each in fit.layers if ".lora_" in each.layer.role]
    if lora:
        rank = next((layer.shape[0] for layer in lora if layer.role.endswith(".lora_a")), None)
        if rank is None or any(layer.role.partition(".")[0] not in _ADAPTED for layer in lora):
            return ""
        return f"meta-train one for such adapters (hf-l3rs init, with trainable: lora:{rank}), or "
    from hf_l3rs.hub.artifact import RELEASED, load_network

    vision = load_network(RELEASED / "l3rs-vision").config
    fits = measure_fit([each.layer for each in fit.layers], vision).share >= minimum
    return f"{'use l3rs-vision, which knows layers by role, ' if fits else ''}meta-train one (hf-l3rs init), or "
