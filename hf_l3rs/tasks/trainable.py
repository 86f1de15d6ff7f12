"""What of a base model is fine-tuned: all layers, the head, the last blocks and the head, or adapters and the head."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.learned.layers import canonical_name, describe_layers
from hf_l3rs.tasks.lora import add_adapters
from hf_l3rs.validation import short


logger = logging.getLogger(__name__)

ALL, HEAD = "all", "head"
_LAST = re.compile(r"last:([1-9][0-9]{0,3})")
_LORA = re.compile(r"lora:([1-9][0-9]{0,3})")
# A block is what is numbered first, or second right below: `layers.3`, `blocks.6.0`, `stages.2.layers.0`.
_BLOCK = re.compile(r"(?:.*?\.)??\d+(?:(?:\.(?:layers|blocks))?\.\d+)?(?=\.)")


def check_trainable(value: str) -> None:
    """Raises unless `value` names a choice of layers: `all`, `head`, `last:N` or `lora:N` with N from 1."""
    if value not in (ALL, HEAD) and not _LAST.fullmatch(value) and not _LORA.fullmatch(value):
        raise ConfigError(
            f"ModelArguments.trainable must be {ALL}, {HEAD}, last:N for the last N blocks and the head, such as "
            f"last:2, or lora:N for adapters of rank N and the head, such as lora:8; got {short(value)}."
        )


def freeze(model: nn.Module, trainable: str) -> None:
    """
    Freezes all but the chosen layers of a model, in place. What is frozen is no layer to an L3RS, and no graph is
    built for it. Batch norm's running statistics go on being updated in frozen layers, too, as in the Trainer.

    Args:
        model (`nn.Module`): What is to be fine-tuned.
        trainable (`str`):
            `all`, `head`, `last:N`: the last N blocks, whatever comes after them, and the head, or `lora:N`: adapters
            of rank N, which are put into the model, and the head.

    Raises:
        ConfigError: If the model has no head, not so many blocks, or nothing to adapt, or peft is not installed.
    """
    if trainable == ALL:
        return
    if not any(layer.is_head for layer in describe_layers(model.named_parameters())):
        raise ConfigError(
            f"The model has no parameter named classifier, head, fc or score, so that trainable={trainable} finds no "
            f"head to train; set it to {ALL}."
        )
    if _LORA.fullmatch(trainable):
        add_adapters(model, _count(trainable))  # which freezes all the rest
        chosen = [parameter.requires_grad for parameter in model.parameters()]
    else:
        chosen = [False for _ in model.parameters()]
    head = [layer.is_head for layer in describe_layers(model.named_parameters())]
    start = _start_of_last_blocks(model, head, _count(trainable)) if _LAST.fullmatch(trainable) else len(head)
    for index, (parameter, *choices) in enumerate(zip(model.parameters(), chosen, head)):
        parameter.requires_grad_(any(choices) or index >= start)


def _count(trainable: str) -> int:
    return int(trainable.rpartition(":")[2])


def _start_of_last_blocks(model: nn.Module, head: list[bool], count: int) -> int:
    """Returns the index of the first parameter of the last `count` blocks, in the order of the model's parameters."""
    blocks: dict[str, int] = {}
    for index, ((name, _), is_head) in enumerate(zip(model.named_parameters(), head)):
        found = _BLOCK.match(canonical_name(name))
        if found and not is_head:
            blocks.setdefault(found[0], index)
    # what stands in a stage beside its blocks, such as downsampling, is none
    starts = sorted(start for block, start in blocks.items() if not any(b.startswith(f"{block}.") for b in blocks))
    if count > len(starts):
        allowed = f"last:1 to last:{len(starts)}, {HEAD} or {ALL}" if starts else f"{HEAD} or {ALL}"
        raise ConfigError(
            f"The model has {len(starts)} numbered blocks, but trainable is last:{count}; use {allowed}."
        )
    return starts[-count]


def compare_trainable(meta_training: Mapping[str, Any], trainable: str) -> None:
    """
    Warns where other layers are fine-tuned than in meta-training, so that the L3RS is measured at what it is not made
    for. What does not fit at all is refused when it is bound.

    Args:
        meta_training (`Mapping`): Of the artefact's configuration; `trainable` is there unless it was `all`.
        trainable (`str`): What is fine-tuned now.
    """
    own = meta_training.get("trainable", ALL)
    if meta_training and own != trainable:
        logger.warning(
            "This L3RS was meta-trained with trainable=%s, and is now used with trainable=%s; set it to %s to measure "
            "the L3RS at what it is made for.",
            *(own, trainable, own),
        )
