"""What is known of a layer before the first step: whose embedding it takes, how wide it is, and how deep it stands."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from hf_l3rs.optimizer.config import STRUCTURE, L3RSConfig, LayerSpec


# What the name of a known layer starts with that stands for every layer of its role.
ROLE_PREFIX = "role:"

# What torch.compile, DDP, activation checkpointing and PEFT put into a parameter's name.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_checkpoint_wrapped_module|base_model\.model|base_layer)\.")

# What PEFT puts around an adapter's name, which is the user's choice: a trained copy of a module that it leaves alone
# otherwise, such as the head, and the parts of a LoRA.
_TRAINED_COPY = re.compile(r"(?<=\.)modules_to_save\.[^.]+\.")
_ADAPTER = re.compile(
    r"(?<=\.)(lora_(?:A|B|magnitude_vector)(?=\.[^.]+\.(?:weight|bias)$)|lora_embedding_[AB])\.[^.]+"
)
_LORA = re.compile(
    r"(?P<path>.*)\.lora_(?P<added>embedding_)?(?P<part>A|B|magnitude_vector)(?:\.(?P<leaf>weight|bias))?"
)

# What transformers puts before every name of a model of timm.
_OF_TIMM = "timm_model."

# Names that one library gave and another, or a later release, changed. Both sides are brought to the right-hand form.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"\.encoder\.layer\.(\d+)\.", r".layers.\1."),
    (r"\.encoder\.layers\.(\d+)\.(?!blocks)", r".layers.\1."),
    (r"\.attention\.attention\.", ".attention."),
    (r"\.attention\.(?:self|attn)\.", ".attention."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(?<!attention)\.output\.dense\.", ".mlp.fc2."),
    (r"\.relative_position_bias\.relative_position_bias_table", ".relative_position_bias_table"),
)

# What stands right below the model's own prefix (`vit.`, `resnet.`), which a headless checkpoint lacks.
_TRUNKS = ("embeddings", "embedder", "encoder", "layers", "layernorm", "norm", "pooler", "blocks", "stages")
_HEADS = ("classifier", "head", "fc", "score", "heads")
_ATTENTION = {
    "query": r"(?:^|\.)(?:q_proj|query|q|to_q)\.",
    "key": r"(?:^|\.)(?:k_proj|key|k|to_k)\.",
    "value": r"(?:^|\.)(?:v_proj|value|v|to_v)\.",
    "qkv": r"(?:^|\.)(?:qkv|in_proj|c_attn)\.?",
    "attention_output": r"(?:^|\.)(?:o_proj|out_proj|attn\.proj|attention\.output\.dense)\.",
}


def canonical_name(name: str) -> str:
    """Returns the name without what wrappers put into it; adapters keep theirs, as in `q_proj.lora_A.weight`."""
    return _ADAPTER.sub(r"\1", _TRAINED_COPY.sub("", _WRAPPERS.sub("", name)))


def renamed(name: str) -> str:
    """Returns the canonical name with every known rename applied and the model's own prefix (`vit.`) dropped."""
    name = canonical_name(name).removeprefix(_OF_TIMM)
    first, _, rest = name.partition(".")
    if first not in _TRUNKS and rest.split(".")[0] in _TRUNKS:
        name = rest
    name = f".{name}"
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name.lstrip(".")


def named_trainable_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns `(name, parameter)` of every parameter that requires a gradient, in order; tied ones once."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def describe_layers(named_parameters: Iterable[tuple[str, torch.Tensor]]) -> tuple[LayerSpec, ...]:
    """
    Describes parameters as layers. Names and shapes alone decide, so that any model and any checkpoint will do.

    Args:
        named_parameters (`Iterable[tuple[str, torch.Tensor]]`): Such as `model.named_parameters()`.

    Returns:
        `tuple[LayerSpec, ...]`: One layer for each parameter, in the given order.
    """
    return _describe(tuple((canonical_name(name), tuple(parameter.shape)) for name, parameter in named_parameters))


def describe_trainable_layers(model: nn.Module) -> list[LayerSpec]:
    """Describes the layers of a model that are trained; the frozen ones help to tell their roles."""
    named = list(model.named_parameters())
    return [layer for layer, (_, parameter) in zip(describe_layers(named), named) if parameter.requires_grad]


@functools.lru_cache(maxsize=64)  # meta-training builds an optimizer for the same model thousands of times
def _describe(named_shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[LayerSpec, ...]:
    shapes = dict(named_shapes)
    return tuple(
        LayerSpec(name=name, shape=shape, role=_role(name, shape, shapes), block=_block(name))
        for name, shape in named_shapes
    )


def _block(name: str) -> str:
    return ".".join(re.findall(r"\d+", renamed(name)))  # not the number in `dinov2.`


def _role(name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> str:
    """The kind of module, then which of its parameters: `"conv.weight"`, or of a LoRA `"query.lora_a"`."""
    lora = _LORA.fullmatch(name)
    if lora:
        which = f"lora_{lora['part'].lower()}{'_bias' if lora['leaf'] == 'bias' else ''}"
        kind = "embedding" if lora["added"] else _kind(lora["path"], _adapted_shape(lora["path"], shape, shapes))
        return f"{kind}.{which}"
    path, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return "embedding" if len(shape) > 1 else "scale"
    return f"{_kind(path, shapes.get(f'{path}.weight', shape))}.{leaf}"


def _adapted_shape(path: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the weight that a LoRA adapts, whose own layer need not be there, by those of A and B."""
    first, second = shapes.get(f"{path}.lora_A.weight", shape), shapes.get(f"{path}.lora_B.weight", shape)
    return (*second[:1], *first[1:])


def _kind(path: str, weight: tuple[int, ...]) -> str:
    if path.removeprefix(_OF_TIMM).split(".")[0] in _HEADS:
        return "head"
    if len(weight) < 2:
        return "norm"
    if len(weight) > 2:
        return "conv"
    for role, pattern in _ATTENTION.items():
        if re.search(pattern, f"{path}."):
            return role
    return "linear_up" if weight[0] > weight[1] else "linear_down" if weight[0] < weight[1] else "linear"


class Matches(NamedTuple):
    weights: torch.Tensor  # over the known layers, (num_layers, num_known_layers), float64
    rules: tuple[str, ...]  # that matched each layer


def role_layers(layers: Iterable[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Returns one layer for each role, as seen first: what an L3RS knows that is to train models that it never saw."""
    roles = dict.fromkeys(layer.role for layer in layers)
    return tuple(LayerSpec(name=f"{ROLE_PREFIX}{role}", shape=(), role=role, block="") for role in roles)


def match_layers(layers: Sequence[LayerSpec], known: Sequence[LayerSpec]) -> Matches:
    """
    Finds for each layer of a model the known layer whose embedding it takes, by the first of _RULES that finds one.
    What is left takes the mean embedding of its role (`"role_mean"`), or of all layers (`"mean"`) if the role is new.
    """
    return _match(tuple(layers), tuple(known))


# A rule's name, what it looks for in the known layers, and what it knows those by; `None` matches nothing.
_RULES: tuple[tuple[str, Callable[[LayerSpec], object], Callable[[LayerSpec], object]], ...] = (
    ("name", lambda layer: layer.name, lambda known: known.name),
    ("rename", lambda layer: renamed(layer.name), lambda known: renamed(known.name)),
    ("structure", lambda layer: (layer.block, layer.role, layer.shape), lambda known: _structure(known)),
    ("role", lambda layer: f"{ROLE_PREFIX}{layer.role}", lambda known: known.name),
)


def _structure(known: LayerSpec) -> object:
    return None if known.name.startswith(ROLE_PREFIX) else (known.block, known.role, known.shape)


@functools.lru_cache(maxsize=64)
def _match(layers: tuple[LayerSpec, ...], known: tuple[LayerSpec, ...]) -> Matches:
    indices = [(rule, key, _unique_index(known, known_key)) for rule, key, known_key in _RULES]
    weights = torch.zeros(len(layers), len(known), dtype=torch.float64)
    rules = []
    for row, layer in enumerate(layers):
        found = ((rule, [index[key(layer)]]) for rule, key, index in indices if key(layer) in index)
        same_role = [column for column, other in enumerate(known) if other.role == layer.role]
        mean = ("role_mean", same_role) if same_role else ("mean", list(range(len(known))))
        rule, columns = next(found, mean)
        rules.append(rule)
        weights[row, columns] = 1.0 / len(columns)
    return Matches(weights, tuple(rules))


def _unique_index(known: Sequence[LayerSpec], key: Callable[[LayerSpec], object]) -> dict[object, int]:
    """Maps each key to its layer; a key that two layers share identifies neither."""
    keys = [key(layer) for layer in known]
    times = Counter(keys)
    return {each: column for column, each in enumerate(keys) if each is not None and times[each] == 1}


# Columns of the feature group "structure", each roughly within ±1.
STRUCTURE_NAMES = ("log_fan_in", "log_fan_out", "is_matrix", "depth")


def is_matrix(shape: Sequence[int]) -> bool:
    """Whether a parameter multiplies activations: matrices and kernels, but no biases, scales and added embeddings."""
    return len(shape) > 1 and not (len(shape) == 3 and shape[0] == 1)


def fan_in(shape: Sequence[int]) -> int:
    """Returns how many inputs each output of a matrix or kernel sums up; 1 for everything else."""
    return max(math.prod(shape[1:]), 1) if is_matrix(shape) else 1


def identify_layers(layers: Sequence[LayerSpec], config: L3RSConfig) -> torch.Tensor:
    """Returns the weights of [`match_layers`], and with the feature group `"structure"` its columns beside them."""
    weights = match_layers(layers, config.layers).weights
    return torch.cat((weights, structure(layers)), dim=1) if STRUCTURE in config.features else weights


def structure(layers: Sequence[LayerSpec]) -> torch.Tensor:
    """Returns the columns STRUCTURE_NAMES, `(num_layers, 4)`."""
    rows = [
        (
            math.log(fan_in(layer.shape)) / 4 - 1,
            math.log(max(layer.shape[0] if layer.shape else 1, 1)) / 4 - 1,
            float(is_matrix(layer.shape)),
            2 * (index + 0.5) / len(layers) - 1,
        )
        for index, layer in enumerate(layers)
    ]
    return torch.tensor(rows, dtype=torch.float64).view(-1, len(STRUCTURE_NAMES))
