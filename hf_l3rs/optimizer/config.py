"""Everything that an L3RS artefact must remember beside its weights."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from hf_l3rs.errors import ConfigError
from hf_l3rs.markdown import one_line
from hf_l3rs.optimizer.directions import DIRECTIONS
from hf_l3rs.validation import Range, check_fields, short


FORMAT_VERSION = 1

# Fingerprints are of the settings' text: a whole number must stay one where artefacts have it.
Number = int | float

STEP_REFERENCES = ("rms", "relative")
FEATURES = ("relative_time", "absolute_time", "loss", "grad_norm", "param_norm", "direction_norms")
# What is known of a layer before the first step. It is no default: the layers of one model have embeddings for that.
STRUCTURE = "structure"
# A run is long if it has more than this many times the steps of the longest run of meta-training.
LONG_RUN = 5


@dataclass(frozen=True)
class LayerSpec:
    """
    One layer of the model that an L3RS was trained on. A layer is one parameter tensor.

    Args:
        name (`str`): Qualified parameter name without the prefixes that wrappers add.
        shape (`tuple[int, ...]`): Shape of the parameter.
        role (`str`): What the parameter does, such as `"conv.weight"`; see [`~hf_l3rs.describe_layers`].
        block (`str`): The numbers in the name, joined by dots: where in the model the layer stands.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    block: str

    def __post_init__(self) -> None:
        check_fields(self, {"shape": Range(low=0, high=2**63 - 1)}, lengths={"shape": Range(low=0, high=64)})

    @property
    def is_head(self) -> bool:
        """Whether it belongs to the head, which is new in every task."""
        return self.role.startswith("head.")


@dataclass(frozen=True)
class L3RSConfig:
    """
    The architecture and provenance of an L3RS, stored as `config.json`.

    Args:
        layers (`tuple[LayerSpec, ...]`): The layers that own an embedding, in the order of its rows.
        directions (`tuple[str, ...]`, *optional*, defaults to `("adam", "sgd")`):
            What is mixed (paper, figs. 4, 5): `"adam"`, `"sgd"`, `"muon"`, or one of your own ([`Direction`]).
        features (`tuple[str, ...]`, *optional*, defaults to FEATURES):
            Inputs of the network beside the embedding (paper, fig. 2); `"structure"` adds fan-in, fan-out and depth.
        embedding_size (`int`, *optional*, defaults to `8`): Size of a layer's embedding.
        hidden_sizes (`tuple[int, ...]`, *optional*, defaults to `(32, 32)`): Hidden sizes of the MLP.
        ema_decays (`tuple[float, ...]`, *optional*, defaults to `(0.5, 0.9, 0.99)`): The decays γ of eq. 2.
        relative_times (`tuple[float, ...]`, *optional*): Centres c of the features `tanh(10 (k/K - c))`.
        absolute_times (`tuple[float, ...]`, *optional*): Scales c, in steps, of the features `tanh(k/c - 1)`.
        step_reference (`str`, *optional*, defaults to `"rms"`):
            What `exp(output)` multiplies to give λ: `base_step` times the root of the number of elements (`"rms"`), or
            times the layer's own norm, as in LARS (`"relative"`), which carries over between layers of other widths.
        base_step (`float`, *optional*, defaults to `1e-3`):
            The RMS of an untrained L3RS's update per element, under `"relative"` relative to the parameter's.
        width_exponent (`float`, *optional*, defaults to `0`):
            The reference step of a matrix (two dimensions) is multiplied by `min(1, 64 / fan-in)` to this power.
        size_exponent (`float`, *optional*, defaults to `0`):
            The reference step of every layer is multiplied by `min(1, 100,000 / trained parameters)` to this power.
        adam_betas (`tuple[float, float]`, *optional*, defaults to `(0.9, 0.99)`):
            Decays of the direction `"adam"`; the first is that of `"muon"`, too.
        adam_eps (`float`, *optional*, defaults to `1e-8`): Added to the denominator of `"adam"`.
        max_grad_norm (`float`, *optional*): The global gradient norm that meta-training clipped to, if it did.
        batch_norm_momentum (`float`, *optional*):
            The momentum, in (0, 1], that [`~hf_l3rs.L3RS.bind`] sets in the model's batch norm. `None` leaves its own.
        anneal_long_runs (`bool`, *optional*, defaults to `False`):
            Whether in runs planned for more than 5 times `num_training_steps`, λ falls as 1/k after those.
        base_model (`str`, *optional*): Hub id or folder of the pretrained model that meta-training started from.
        base_model_revision (`str`, *optional*): Its commit on the Hub; without it `base_model` is a folder.
        model_type (`str`, *optional*): `model_type` of that model's configuration.
        num_training_steps (`int`, *optional*): The longest horizon, in optimizer steps, that meta-training unrolled.
        meta_training (`dict`, *optional*):
            Settings, cost, and under `"data"` a list of data sets, whose `hub_id` is `None` if it is of a folder.
        library_version (`str`, *optional*): Version of hf_l3rs that wrote the artefact.
        format_version (`int`, *optional*): Version of the artefact's format; a newer one than this library's raises.
    """

    layers: tuple[LayerSpec, ...]
    directions: tuple[str, ...] = ("adam", "sgd")
    features: tuple[str, ...] = FEATURES
    embedding_size: int = 8
    hidden_sizes: tuple[int, ...] = (32, 32)
    ema_decays: tuple[Number, ...] = (0.5, 0.9, 0.99)
    relative_times: tuple[Number, ...] = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
    absolute_times: tuple[Number, ...] = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
    step_reference: str = "rms"
    base_step: Number = 1e-3
    width_exponent: Number = 0
    size_exponent: Number = 0
    adam_betas: tuple[Number, Number] = (0.9, 0.99)
    adam_eps: Number = 1e-8
    max_grad_norm: Number | None = None
    batch_norm_momentum: Number | None = None
    anneal_long_runs: bool = False
    base_model: str | None = None
    base_model_revision: str | None = None
    model_type: str | None = None
    num_training_steps: int | None = None
    meta_training: dict[str, Any] = field(default_factory=dict)
    library_version: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if isinstance(self.layers, (list, tuple)):
            object.__setattr__(self, "layers", tuple(map(_as_layer, self.layers)))
        check_fields(self, _RULES, lengths=_LENGTHS)
        names = [layer.name for layer in self.layers]
        for name, values in (("layers", names), ("directions", self.directions), ("features", self.features)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ConfigError(f"L3RSConfig.{name} must hold each value only once, got {short(twice[0])} twice.")
        object.__setattr__(self, "meta_training", _as_plain_json(self.meta_training))

    def replace(self, **changes: Any) -> L3RSConfig:
        """Returns a copy with `changes` applied and validated."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @functools.cached_property
    def settings(self) -> str:
        """Everything that a step depends on, as JSON: the text that fingerprints are of."""
        values = {name: value for name, value in self.to_dict().items() if name not in _PROVENANCE}
        kept = {name: value for name, value in values.items() if value != _LEFT_OUT.get(name, _NOTHING)}
        return json.dumps({**kept, **_FIXED}, sort_keys=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> L3RSConfig:
        """Builds a configuration from the content of a `config.json`."""
        version = values.get("format_version") if isinstance(values, Mapping) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise ConfigError(
                f"An L3RS config is a mapping, and its format_version must be a whole number, got {short(version)}: "
                "this is not an L3RS config."
            )
        if version > FORMAT_VERSION:
            raise ConfigError(
                f"This L3RS has format_version {version}, but the installed hf_l3rs reads up to {FORMAT_VERSION}; "
                "upgrade it with `pip install -U hf_l3rs`."
            )
        unknown = sorted(set(values) - {spec.name for spec in fields(cls)})
        if unknown:
            raise ConfigError(
                f"Unknown fields in the L3RS config: {one_line(', '.join(unknown))[:100]}; remove them, or upgrade "
                "with `pip install -U hf_l3rs`."
            )
        if "layers" not in values:
            raise ConfigError("The L3RS config has no field 'layers', so it is incomplete; save or download it again.")
        return cls(**values)


# Fields that tell where an L3RS comes from; no step depends on them.
_PROVENANCE = ("base_model", "base_model_revision", "model_type", "meta_training", "library_version", "format_version")
# The fingerprints of the released artefacts must stay, and are of a text with two settings that are fixed now ...
_FIXED = {"momentum": 0.9, "normalize_mixture": False}
# ... and without these fields, which are younger than the first of them, at these values.
_LEFT_OUT = {"anneal_long_runs": False, "batch_norm_momentum": None, "size_exponent": 0, "width_exponent": 0}
_NOTHING = object()

_DECAY, _EXPONENT = Range(low=0, below=1), Range(low=0, high=2)
_RULES: dict[str, Range | Collection[str]] = {
    "directions": DIRECTIONS,  # with those that a user has registered
    "features": (*FEATURES, STRUCTURE),
    "embedding_size": Range(low=0, high=2**16),
    "hidden_sizes": Range(low=1, high=2**16),
    "ema_decays": _DECAY,
    "absolute_times": Range(above=0),
    "step_reference": STEP_REFERENCES,
    "base_step": Range(low=1e-30, high=1e6),  # times exp(±12) and the root of the size it must be a float32
    "width_exponent": _EXPONENT,
    "size_exponent": _EXPONENT,
    "adam_betas": _DECAY,
    "adam_eps": Range(low=1e-30, high=1e30),  # and so must its reciprocal
    "max_grad_norm": Range(above=0),
    "batch_norm_momentum": Range(above=0, high=1),
    "num_training_steps": Range(low=1, high=10**12),
    "format_version": Range(low=1, high=FORMAT_VERSION),
}
_LENGTHS = {
    "layers": Range(low=1, high=20_000),
    "directions": Range(low=1),
    "hidden_sizes": Range(low=0, high=32),
    **dict.fromkeys(("ema_decays", "relative_times", "absolute_times"), Range(low=0, high=1000)),
}
# Every continued run adds a level to the summary: as deep as anybody goes, and far from what would exhaust the stack.
_MAX_DEPTH = 64


def _as_layer(layer: Any) -> LayerSpec:
    try:
        return layer if isinstance(layer, LayerSpec) else LayerSpec(**layer)
    except ConfigError as error:
        raise ConfigError(f"L3RSConfig.layers has an entry that is no layer: {error}") from error
    except TypeError:
        raise ConfigError(
            f"An entry of L3RSConfig.layers needs exactly the fields name, shape, role and block, got {short(layer)}."
        ) from None


def _as_plain_json(summary: dict[str, Any]) -> dict[str, Any]:
    try:
        if not _is_within(summary, _MAX_DEPTH):
            raise ValueError
        text = json.dumps(summary, ensure_ascii=False, allow_nan=False)
        text.encode()
        return json.loads(text)
    except (TypeError, ValueError):
        raise ConfigError(
            "L3RSConfig.meta_training must be a mapping of JSON values, without NaN, infinity or more than "
            f"{_MAX_DEPTH} levels, got {short(summary)}."
        ) from None


def _is_within(value: Any, depth: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return depth >= 0 and all(_is_within(part, depth - 1) for part in parts)
