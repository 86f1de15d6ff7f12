"""A model as an ordered list of layers, and which learned embedding each layer gets."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from hf_l3rs.learned.config import LayerSpec


# What torch.compile, DDP, activation checkpointing and PEFT put into a parameter's name.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_checkpoint_wrapped_module|base_model\.model|base_layer)\.")

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
_TRUNKS = (
    "embeddings",
    "embedder",
    "encoder",
    "layers",
    "layernorm",
    "norm",
    "pooler",
    "blocks",
    "stages",
)
_HEADS = ("classifier", "head", "fc", "score", "heads")
_ATTENTION = {
    "query": r"(?:^|\.)(?:q_proj|query|q|to_q)\.",
    "key": r"(?:^|\.)(?:k_proj|key|k|to_k)\.",
    "value": r"(?:^|\.)(?:v_proj|value|v|to_v)\.",
    "qkv": r"(?:^|\.)(?:qkv|in_proj|c_attn)\.?",
    "attention_output": r"(?:^|\.)(?:o_proj|out_proj|attn\.proj|attention\.output\.dense)\.",
}


def canonical_name(name: str) -> str:
    """Returns the name without the prefixes that torch.compile, DDP, activation checkpointing and PEFT add."""
    return _WRAPPERS.sub("", name)


def renamed(name: str) -> str:
    """Returns the canonical name with every known rename applied and the model's own prefix (`vit.`) dropped."""
    name = canonical_name(name)
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


def describe_layers(
    named_parameters: Iterable[tuple[str, torch.Tensor]],
) -> tuple[LayerSpec, ...]:
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
    trained = {canonical_name(name) for name, _ in named_trainable_parameters(model)}
    return [layer for layer in describe_layers(model.named_parameters()) if layer.name in trained]


@functools.lru_cache(maxsize=64)  # meta-training builds an optimizer for the same model thousands of times
def _describe(named_shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[LayerSpec, ...]:
    shapes = dict(named_shapes)
    return tuple(
        LayerSpec(name=name, shape=shape, role=_role(name, shape, shapes), block=_block(name))
        for name, shape in shapes.items()
    )


def _block(name: str) -> str:
    return ".".join(re.findall(r"\d+", renamed(name)))  # not the number in `dinov2.`


def _role(name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> str:
    """The kind of module the parameter belongs to, then which of its parameters it is: `"conv.weight"`."""
    path, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return "embedding" if len(shape) > 1 else "scale"
    if path.split(".")[0] in _HEADS:
        return f"head.{leaf}"
    weight = shapes.get(f"{path}.weight", shape)
    if len(weight) < 2:
        return f"norm.{leaf}"
    if len(weight) > 2:
        return f"conv.{leaf}"
    for role, pattern in _ATTENTION.items():
        if re.search(pattern, f"{path}."):
            return f"{role}.{leaf}"
    kind = "linear_up" if weight[0] > weight[1] else "linear_down" if weight[0] < weight[1] else "linear"
    return f"{kind}.{leaf}"


def match_layers(layers: Sequence[LayerSpec], known: Sequence[LayerSpec]) -> tuple[torch.Tensor, list[str]]:
    """
    Finds for each layer of a model the trained layers whose embeddings it takes, as weights over them.

    A layer is matched by its canonical name, then by known renames, then by block, role and shape. What is left takes
    the mean embedding of its role, or of all layers if the role is new.

    Args:
        layers (`Sequence[LayerSpec]`): The layers of the model that is to be trained.
        known (`Sequence[LayerSpec]`): The layers that own an embedding.

    Returns:
        `tuple[torch.Tensor, list[str]]`: Weights of shape `(len(layers), len(known))` whose rows sum to one, and the
        names of the layers that were left to a mean.
    """
    weights, unmatched = _match(tuple(layers), tuple(known))
    return weights.clone(), list(unmatched)


@functools.lru_cache(maxsize=64)
def _match(layers: tuple[LayerSpec, ...], known: tuple[LayerSpec, ...]) -> tuple[torch.Tensor, tuple[str, ...]]:
    rules: tuple[Callable[[LayerSpec], object], ...] = (
        lambda layer: layer.name,
        lambda layer: renamed(layer.name),
        lambda layer: (layer.block, layer.role, layer.shape),
    )
    indices = [_unique_index(known, rule) for rule in rules]
    weights = torch.zeros(len(layers), len(known), dtype=torch.float64)
    unmatched = []
    for row, layer in enumerate(layers):
        found = next(
            (index[rule(layer)] for rule, index in zip(rules, indices) if rule(layer) in index),
            None,
        )
        if found is not None:
            weights[row, found] = 1.0
            continue
        unmatched.append(layer.name)
        same_role = [column for column, other in enumerate(known) if other.role == layer.role]
        columns = same_role or range(len(known))
        weights[row, list(columns)] = 1.0 / len(columns)
    return weights, tuple(unmatched)


def _unique_index(known: Sequence[LayerSpec], rule: Callable[[LayerSpec], object]) -> dict[object, int]:
    """Maps each key to its layer; a key that two layers share identifies neither."""
    index: dict[object, int] = {}
    shared = set()
    for column, layer in enumerate(known):
        key = rule(layer)
        shared.update({key} & index.keys())
        index[key] = column
    return {key: column for key, column in index.items() if key not in shared}
