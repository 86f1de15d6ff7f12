"""What lets the stock `transformers.Trainer` build an L3RS itself, for every model that `model_init` makes."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.integration.callback import register
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.learned.optimizer import LearnedOptimizer
from hf_l3rs.optimizer import L3RS


# A Trainer builds its optimizer when its callbacks are chosen long since, so they must know L3RS by then.
register()


class L3RSFactory:
    """
    Builds an [`L3RS`] of its own for each model, for `Trainer(optimizer_cls_and_kwargs=(L3RSFactory, {...}))`: with
    `model_init` and `hyperparameter_search`, where `optimizers` are refused. Beside it the stock `Trainer` behaves as
    with [`L3RSCallback`]; of the optimizer's settings in `TrainingArguments`, such as `learning_rate`, none is used.

    The second part of the pair are the arguments of a call:

    Args:
        l3rs (`str`, `os.PathLike`, [`L3RS`], [`L3RSArtifact`] or [`L3RSNetwork`]):
            The learned optimizer: a Hub id, a folder, an L3RS, whose meta-weights and `lr` are used, or the
            meta-weights.
        **kwargs: Arguments of [`L3RS.from_pretrained`], such as `revision` or `lr`, where it is a Hub id or a folder.

    Example:

    ```python
    trainer = Trainer(
        model_init=model_init,
        args=args,
        train_dataset=dataset,
        optimizer_cls_and_kwargs=(L3RSFactory, {"l3rs": "model_cards/l3rs-resnet-tiny-fashion"}),
    )
    ```
    """

    def __call__(self, model: nn.Module, l3rs: Any = None, **kwargs: Any) -> LearnedOptimizer:
        """
        Returns an L3RS that is bound to `model`; the Trainer tells it the rest.

        Raises:
            ConfigError: If `l3rs` is nothing of the kind, or has arguments that are not for it.
            ArtifactError: If it cannot be had, or is not a readable L3RS.
            BindingError: If it is another model's.
            UnsupportedSetupError: Under DeepSpeed or FSDP.
        """
        return own_optimizer(as_optimizer(l3rs, kwargs)).bind(model)


def as_optimizer(l3rs: Any, kwargs: dict[str, Any] | None = None) -> LearnedOptimizer:
    """
    Returns the learned optimizer that `l3rs` names or holds.

    Args:
        l3rs (`str`, `os.PathLike`, [`L3RS`], [`L3RSArtifact`] or [`L3RSNetwork`]): See [`L3RSFactory`].
        kwargs (`dict`, *optional*): Arguments of [`L3RS.from_pretrained`] for a Hub id or a folder.

    Raises:
        ConfigError: If it is nothing of the kind, or has arguments that are not for it.
    """
    if isinstance(l3rs, (str, os.PathLike)):
        return L3RS.from_pretrained(l3rs, **(kwargs or {}))
    if kwargs:
        raise ConfigError(
            f"The options {', '.join(kwargs)} are for loading a Hub id or a folder, but l3rs is "
            f"{type(l3rs).__name__}; leave them out."
        )
    if isinstance(l3rs, LearnedOptimizer):
        return l3rs
    if isinstance(l3rs, L3RSNetwork):
        l3rs = L3RSArtifact(l3rs)
    if isinstance(l3rs, L3RSArtifact):
        optimizer = L3RS(network=l3rs.network)
        optimizer.commit_hash = l3rs.commit_hash
        return optimizer
    raise ConfigError(
        "l3rs must be a Hub id, a folder, an L3RS, an L3RSArtifact or an L3RSNetwork, got "
        f"{type(l3rs).__name__}; load one by L3RS.from_pretrained(...)."
    )


def own_optimizer(template: LearnedOptimizer) -> L3RS:
    """Returns an unbound L3RS with the meta-weights and settings of another, which stays as it is."""
    optimizer = L3RS(
        network=template.network,
        lr=template.param_groups[0]["lr"],
        synchronize_loss=template.loss_observer.synchronize,
        float32_copy=template.float32_copy,
        fused=template.fused,
        minimum_fit=template.minimum_fit,
    )
    optimizer.commit_hash = getattr(template, "commit_hash", None)
    return optimizer
