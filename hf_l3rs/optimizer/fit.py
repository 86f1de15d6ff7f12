"""How well an L3RS fits a model: which share of what is trained are layers that it was meta-trained for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hf_l3rs.errors import BindingError, ConfigError
from hf_l3rs.optimizer.config import L3RSConfig, LayerSpec
from hf_l3rs.optimizer.layers import ROLE_PREFIX, fan_in, is_matrix, match_layers
from hf_l3rs.validation import short


# Below this share of the parameters an L3RS is another model's (ours).
MINIMUM_FIT = 0.5

# How layers are matched, in words. Those of the first four fit; "other_shape" is a known name with another shape.
_KINDS = {
    "name": "by name",
    "rename": "by a known rename",
    "structure": "by structure",
    "role": "by role",
    "other_shape": "of another shape",
    "role_mean": "by the mean of their role",
    "mean": "by the mean of all layers",
}
FITTING = tuple(_KINDS)[:4]

# The reference whose steps carry over between widths, so that a role is all that need be known of a layer.
CARRIES_OVER = "relative"


class LayerFit(NamedTuple):
    """
    How one layer of a model is matched.

    Args:
        layer ([`LayerSpec`]): The layer.
        kind (`str`): `"name"`, `"rename"`, `"structure"`, `"role"`, `"other_shape"`, `"role_mean"` or `"mean"`.
        width_ratio (`float`): Of its fan-in and that of the known layer whose embedding it takes, or of the nearest
            of its role, the larger over the smaller; 1 for what is no matrix or kernel, or if none is known.
    """

    layer: LayerSpec
    kind: str
    width_ratio: float


@dataclass(frozen=True)
class Fit:
    """
    How well an L3RS fits what is trained (ours).

    Args:
        layers (`tuple[LayerFit, ...]`): How each layer is matched, in the model's order.
    """

    layers: tuple[LayerFit, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many layers are matched in each way; ways that none is matched in are left out."""
        kinds = [each.kind for each in self.layers]
        return {kind: kinds.count(kind) for kind in _KINDS if kind in kinds}

    @property
    def shares(self) -> dict[str, float]:
        """Which share of the parameters is in the layers that are matched in each way; they sum to one."""
        sizes = dict.fromkeys(self.counts, 0)
        for each in self.layers:
            sizes[each.kind] += math.prod(each.layer.shape)
        return {kind: size / max(sum(sizes.values()), 1) for kind, size in sizes.items()}

    @property
    def share(self) -> float:
        """
        Which share of the parameters, in [0, 1], is in layers that are matched by name, known rename or structure and
        have the shape that is known, or by role where that is enough. A head, which may be larger than all the rest,
        counts only where nothing else is trained, and then up to its number of classes.
        """
        counted = self._body or self.layers
        sizes = [(each.kind in FITTING, math.prod(each.layer.shape)) for each in counted]
        total = sum(size for _, size in sizes)
        return sum(size for fits, size in sizes if fits) / total if total else 1.0

    @property
    def width_ratio(self) -> float:
        """The largest ratio of the fan-in of a matrix or kernel and that of the layer it is taken for; at least 1."""
        return max((each.width_ratio for each in self.layers), default=1.0)

    @property
    def is_full(self) -> bool:
        """Whether every layer fits."""
        return all(each.kind in FITTING for each in self.layers)

    @property
    def misfits(self) -> list[str]:
        """The names of the layers that do not fit."""
        return [each.layer.name for each in self.layers if each.kind not in FITTING]

    def describe(self) -> str:
        """Returns the figures in one line, to come after the L3RS's name: `"fits all 3 layers (100 % of ..."`."""
        total, misfits = len(self.layers), len(self.misfits)
        fitting = f"{total - misfits} of {total}" if misfits else f"all {total}"
        ways = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in self.counts.items())
        scope = ", head aside" if 0 < len(self._body) < total else ""
        text = f"fits {fitting} layers ({_percent(self.share)} of the parameters{scope}): {ways}"
        ratio = self.width_ratio
        return text if ratio == 1 else f"{text}; fan-in differs up to {ratio:.3g}-fold"

    @property
    def _body(self) -> list[LayerFit]:
        return [each for each in self.layers if not each.layer.is_head]


def measure_fit(layers: Sequence[LayerSpec], config: L3RSConfig) -> Fit:
    """
    Measures how well an L3RS fits a model.

    Args:
        layers (`Sequence[LayerSpec]`): The trained layers of the model.
        config ([`L3RSConfig`]): Of the L3RS.

    Returns:
        [`Fit`]
    """
    weights, rules = match_layers(layers, config.layers)
    sources = weights.argmax(dim=1).tolist()
    carries_over = config.step_reference == CARRIES_OVER
    by_role: dict[str, list[LayerSpec]] = {}
    for known in config.layers:
        if not known.name.startswith(ROLE_PREFIX):  # of a role alone, no width is known
            by_role.setdefault(known.role, []).append(known)
    fits = []
    for layer, rule, source in zip(layers, rules, sources):
        known, kin = config.layers[source], by_role.get(layer.role, [])
        if rule in ("name", "rename"):
            kind = rule if _has_same_shape(layer, known) else "other_shape"
        elif rule == "role_mean" and layer.is_head and kin and all(_fits_head(layer, each) for each in kin):
            kind = "structure"  # of a head that is the role and the fan-in
        else:
            kind = "role_mean" if rule == "role" and not carries_over else rule
        relatives = [known] if rule in ("name", "rename", "structure") else kin
        fits.append(LayerFit(layer, kind, _width_ratio(layer, relatives)))
    return Fit(tuple(fits))


def _has_same_shape(layer: LayerSpec, known: LayerSpec) -> bool:
    return _fits_head(layer, known) if layer.is_head else layer.shape == known.shape


def _fits_head(layer: LayerSpec, known: LayerSpec) -> bool:
    """Whether two heads have the same shape up to the number of classes."""
    return layer.shape[1:] == known.shape[1:]


def _width_ratio(layer: LayerSpec, relatives: Sequence[LayerSpec]) -> float:
    if not is_matrix(layer.shape):
        return 1.0
    own, others = fan_in(layer.shape), [fan_in(other.shape) for other in relatives]
    return min((max(own / other, other / own) for other in others), default=1.0)


def _percent(share: float) -> str:
    """Rounded down: what is not full is not called so, and what is refused is seen to lie below the bound."""
    return f"{math.floor(1000 * share) / 10:g} %"


def check_minimum_fit(minimum: float) -> None:
    """Raises unless `minimum` is a share."""
    if not isinstance(minimum, (int, float)) or isinstance(minimum, bool) or not 0 <= minimum <= 1:
        raise ConfigError(
            f"minimum_fit is a share of the parameters and must be in [0, 1], got {short(minimum)}; 0 refuses nothing."
        )


def refuse_misfit(fit: Fit, minimum: float) -> None:
    """
    Refuses to train a model that an L3RS is not made for.

    Args:
        fit ([`Fit`]): From [`measure_fit`].
        minimum (`float`): The least share of the parameters that must be in layers that fit.

    Raises:
        BindingError: If the share is less; the message has the figures and the ways out.
    """
    if fit.share < minimum:
        rank = next((each.layer.shape[0] for each in fit.layers if each.layer.role.endswith(".lora_a")), None)
        setting = f"trainable: lora:{rank}" if rank else "initial_l3rs: this one"
        raise BindingError(
            f"This L3RS {fit.describe()}; that is less than minimum_fit={minimum:g}; meta-train one for this model in "
            f"minutes (hf-l3rs init, with {setting}), use one that knows layers by role, such as "
            "l3rs-universal-start, or pass minimum_fit=0 to go on all the same."
        )
