"""Everything that an L3RS artefact must remember beside its weights."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from hf_l3rs.errors import ConfigError


FORMAT_VERSION = 1

STEP_REFERENCES = ("rms", "absolute")
FEATURES = (
    "relative_time",
    "absolute_time",
    "loss",
    "grad_norm",
    "param_norm",
    "direction_norms",
)


@dataclass(frozen=True)
class LayerSpec:
    """
    One layer of the model that an L3RS was trained on. A layer is one parameter tensor (ours).

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
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))


@dataclass(frozen=True)
class L3RSConfig:
    """
    The architecture and provenance of an L3RS, stored as `config.json`.

    Args:
        layers (`tuple[LayerSpec, ...]`):
            The layers that own an embedding, in the order of the embedding's rows.
        directions (`tuple[str, ...]`, *optional*, defaults to `("adam", "sgd")`):
            The base directions that are mixed (paper, figs. 4 and 5), names of `DIRECTIONS`.
        features (`tuple[str, ...]`, *optional*, defaults to all):
            The groups of inputs of the network (paper, fig. 2), beside the layer embedding, which is always there.
        embedding_size (`int`, *optional*, defaults to `8`): Size of a layer's embedding (ours).
        hidden_sizes (`tuple[int, ...]`, *optional*, defaults to `(32, 32)`): Hidden sizes of the MLP (ours).
        ema_decays (`tuple[float, ...]`, *optional*, defaults to `(0.5, 0.9, 0.99)`):
            The bank of decays γ of eq. 2 (values ours), bias-corrected (ours).
        relative_times (`tuple[float, ...]`, *optional*):
            Centres c of the relative-time features `tanh(10 (k/K - c))` (ours).
        absolute_times (`tuple[float, ...]`, *optional*):
            Scales c, in steps, of the absolute-time features `tanh(k/c - 1)` (ours).
        step_reference (`str`, *optional*, defaults to `"rms"`):
            What `exp(output)` multiplies to give λ: `"rms"` is `base_step * sqrt(number of elements)` (ours),
            `"absolute"` is `base_step`, λ being then the paper's plain norm.
        base_step (`float`, *optional*, defaults to `1e-3`):
            The reference step: under `"rms"`, the root mean square of an untrained L3RS's update per element.
        normalize_mixture (`bool`, *optional*, defaults to `False`):
            Whether the mixture is rescaled to unit norm before λ is applied (ours).
        adam_betas (`tuple[float, float]`, *optional*, defaults to `(0.9, 0.99)`): Decays of the direction `"adam"`.
        adam_eps (`float`, *optional*, defaults to `1e-8`): Added to the denominator of the direction `"adam"`.
        momentum (`float`, *optional*, defaults to `0.9`): Decay of the direction `"momentum"`.
        max_grad_norm (`float`, *optional*):
            The global gradient norm that meta-training clipped to; `None` means that it did not clip.
        base_model (`str`, *optional*): Hub id or folder name of the pretrained model that meta-training started from.
        base_model_revision (`str`, *optional*): The Hub's commit of that model; `None` for a folder.
        model_type (`str`, *optional*): `model_type` of that model's configuration.
        num_training_steps (`int`, *optional*): The longest horizon, in optimizer steps, that meta-training unrolled.
        meta_training (`dict`, *optional*): A summary of meta-training: data, settings, cost. Plain JSON values.
        library_version (`str`, *optional*): Version of hf_l3rs that wrote the artefact.
        format_version (`int`, *optional*): Version of the artefact's format; a newer one than this library's raises.

    Raises:
        ConfigError: If a value is out of its range; the message names the value and what is allowed.
    """

    layers: tuple[LayerSpec, ...]
    directions: tuple[str, ...] = ("adam", "sgd")
    features: tuple[str, ...] = FEATURES
    embedding_size: int = 8
    hidden_sizes: tuple[int, ...] = (32, 32)
    ema_decays: tuple[float, ...] = (0.5, 0.9, 0.99)
    relative_times: tuple[float, ...] = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
    absolute_times: tuple[float, ...] = (
        1,
        3,
        10,
        30,
        100,
        300,
        1e3,
        3e3,
        1e4,
        3e4,
        1e5,
    )
    step_reference: str = "rms"
    base_step: float = 1e-3
    normalize_mixture: bool = False
    adam_betas: tuple[float, float] = (0.9, 0.99)
    adam_eps: float = 1e-8
    momentum: float = 0.9
    max_grad_norm: float | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    model_type: str | None = None
    num_training_steps: int | None = None
    meta_training: dict[str, Any] = field(default_factory=dict)
    library_version: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in _TUPLE_FIELDS:
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"L3RSConfig.{name} must be a list, got {value!r}; write one value as [value].")
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "layers", tuple(_as_layer(layer) for layer in self.layers))
        self._validate_names()
        self._validate_numbers()
        self._validate_types()

    def _validate_names(self) -> None:
        from hf_l3rs.learned.directions import DIRECTIONS

        names = [layer.name for layer in self.layers]
        if not names:
            raise ConfigError("L3RSConfig.layers is empty, but an L3RS needs at least one layer; describe a model.")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"L3RSConfig.layers names {twice!r} twice; every layer needs a name of its own.")
        _check_known("directions", self.directions, tuple(DIRECTIONS), at_least=1)
        _check_known("features", self.features, FEATURES, at_least=0)
        _check_known("step_reference", (self.step_reference,), STEP_REFERENCES, at_least=1)

    def _validate_numbers(self) -> None:
        _check_range("embedding_size", self.embedding_size, low=0, kind=int)
        for size in self.hidden_sizes:
            _check_range("hidden_sizes", size, low=1, kind=int)
        if len(self.adam_betas) != 2:
            raise ConfigError(f"L3RSConfig.adam_betas must hold two decays, got {list(self.adam_betas)}.")
        for name in ("ema_decays", "adam_betas"):
            for decay in getattr(self, name):
                _check_range(name, decay, low=0.0, below=1.0)
        _check_range("momentum", self.momentum, low=0.0, below=1.0)
        for center in self.relative_times:
            _check_range("relative_times", center, above=-float("inf"))
        for scale in self.absolute_times:
            _check_range("absolute_times", scale, above=0.0)
        _check_range("base_step", self.base_step, above=0.0)
        _check_range("adam_eps", self.adam_eps, low=1e-30)  # its reciprocal must be a float32
        if self.max_grad_norm is not None:
            _check_range("max_grad_norm", self.max_grad_norm, above=0.0)
        if self.num_training_steps is not None:
            _check_range("num_training_steps", self.num_training_steps, low=1, kind=int)
        _check_range("format_version", self.format_version, low=1, kind=int)

    def _validate_types(self) -> None:
        if not isinstance(self.normalize_mixture, bool):
            raise ConfigError(f"L3RSConfig.normalize_mixture must be true or false, got {self.normalize_mixture!r}.")
        for name in ("base_model", "base_model_revision", "model_type", "library_version"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"L3RSConfig.{name} must be a string or null, got {value!r}.")
        try:
            is_json = isinstance(self.meta_training, dict) and bool(json.dumps(self.meta_training))
        except (TypeError, ValueError):
            is_json = False
        if not is_json:
            raise ConfigError(f"L3RSConfig.meta_training must be a dict of JSON values, got {self.meta_training!r}.")

    def replace(self, **changes: Any) -> L3RSConfig:
        """Returns a copy with `changes` applied and validated."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @functools.cached_property
    def settings(self) -> str:
        """Everything that a step depends on, as JSON: all fields but those that tell where the L3RS comes from."""
        return json.dumps(
            {name: value for name, value in self.to_dict().items() if name not in _PROVENANCE}, sort_keys=True
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> L3RSConfig:
        """
        Builds a configuration from the content of a `config.json`.

        Args:
            values (`Mapping[str, Any]`): Field names to JSON values.

        Returns:
            [`L3RSConfig`]

        Raises:
            ConfigError: If the format is newer than this library's, or a field is unknown, missing or out of range.
        """
        version = values.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool):
            raise ConfigError(f"format_version must be a whole number, got {version!r}: this is not an L3RS config.")
        if version > FORMAT_VERSION:
            raise ConfigError(
                f"This L3RS has format_version {version}, but the installed hf_l3rs reads up to {FORMAT_VERSION}; "
                "upgrade it with `pip install -U hf_l3rs`."
            )
        known = {spec.name for spec in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"Unknown fields in the L3RS config: {', '.join(unknown)}; known are {sorted(known)}.")
        if "layers" not in values:
            raise ConfigError(
                "The L3RS config has no field 'layers': this is not an L3RS config, or it is incomplete."
            )
        return cls(**values)


_PROVENANCE = (
    "base_model",
    "base_model_revision",
    "model_type",
    "meta_training",
    "library_version",
    "format_version",
)

_TUPLE_FIELDS = (
    "layers",
    "directions",
    "features",
    "hidden_sizes",
    "ema_decays",
    "relative_times",
    "absolute_times",
    "adam_betas",
)


def _as_layer(layer: Any) -> LayerSpec:
    try:
        spec = layer if isinstance(layer, LayerSpec) else LayerSpec(**layer)
        if all(isinstance(text, str) for text in (spec.name, spec.role, spec.block)):
            return spec
    except (TypeError, ValueError):
        pass
    raise ConfigError(
        f"An entry of L3RSConfig.layers needs exactly the fields name, shape, role and block, got {layer!r}."
    )


def _check_known(name: str, values: tuple[str, ...], allowed: tuple[str, ...], *, at_least: int) -> None:
    unknown = [value for value in values if value not in allowed]
    if unknown or len(values) < at_least or len(set(values)) != len(values):
        raise ConfigError(
            f"L3RSConfig.{name} must hold at least {at_least} of {', '.join(allowed)}, each once, got {list(values)}."
        )


def _check_range(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    below: float = float("inf"),
    kind: type = float,
) -> None:
    """Raises unless `value` is a finite number of `kind` with `low <= value`, `above < value` and `value < below`."""
    numeric = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if numeric and (low is None or value >= low) and (above is None or value > above) and value < below:
        return
    start = f"[{low}" if low is not None else f"({above}"
    raise ConfigError(f"L3RSConfig.{name} must be a {kind.__name__} in {start}, {below}), got {value!r}.")
