"""A `transformers.Trainer` that trains with L3RS whatever the loss is and however the model is made."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_l3rs.errors import ConfigError
from hf_l3rs.hub.artifact import L3RSArtifact
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.optimizer.optimizer import L3RS
from hf_l3rs.trainer.callback import L3RSCallback, refuse_engines, register, unwrap_optimizer


# A Trainer builds its optimizer when its callbacks are chosen long since, so they must know L3RS by then.
register()


class L3RSFactory:
    """
    Builds an [`L3RS`] of its own for each model of a stock `Trainer`, as `model_init` and `hyperparameter_search`
    need. The optimizer's settings in `TrainingArguments`, such as `learning_rate`, are not used.

    Args:
        l3rs (`str`, `os.PathLike`, [`L3RS`], [`L3RSArtifact`] or [`L3RSNetwork`]):
            The learned optimizer: the name of a released one, a folder, a Hub id, an L3RS, whose meta-weights and `lr`
            are used, or the meta-weights.
        **kwargs: Arguments of [`L3RS.from_pretrained`], such as `revision` or `lr`, where it is to be loaded.

    Example:

    ```python
    factory = (L3RSFactory, {"l3rs": "l3rs-resnet-tiny-fashion"})
    trainer = Trainer(args=args, model_init=model_init, train_dataset=dataset, optimizer_cls_and_kwargs=factory)
    ```
    """

    def __call__(self, model: nn.Module, l3rs: Any = None, **kwargs: Any) -> L3RS:
        """Returns an L3RS that is bound to `model`; the Trainer tells it the rest."""
        return _unbound_twin(_as_optimizer(l3rs, kwargs)).bind(model)


def _as_optimizer(l3rs: Any, kwargs: dict[str, Any]) -> L3RS:
    if isinstance(l3rs, (str, os.PathLike)):
        return L3RS.from_pretrained(l3rs, **kwargs)
    if kwargs:
        raise ConfigError(
            f"The options {', '.join(kwargs)} are for loading an L3RS by its name, folder or Hub id, but l3rs is "
            f"{type(l3rs).__name__}; leave them out."
        )
    if isinstance(l3rs, L3RS):
        return l3rs
    network = l3rs.network if isinstance(l3rs, L3RSArtifact) else l3rs
    if not isinstance(network, L3RSNetwork):
        raise ConfigError(
            "l3rs must be a name, a folder, a Hub id, an L3RS, an L3RSArtifact or an L3RSNetwork, got "
            f"{type(l3rs).__name__}; load one by L3RS.from_pretrained(...)."
        )
    optimizer = L3RS(network=network)
    optimizer.commit_hash = getattr(l3rs, "commit_hash", None)
    return optimizer


def _unbound_twin(template: L3RS) -> L3RS:
    """Returns an unbound L3RS with the meta-weights and settings of another, which stays as it is."""
    optimizer = L3RS(
        network=template.network,
        lr=template.param_groups[0]["lr"],
        synchronize_loss=template.loss_observer.synchronize,
        float32_copy=template.float32_copy,
        minimum_fit=template.minimum_fit,
    )
    optimizer.commit_hash = template.commit_hash
    return optimizer


class L3RSTrainer(Trainer):
    """
    A `Trainer` that trains with an [`L3RS`]. It sees the very loss that is differentiated, with label smoothing,
    `compute_loss_func` or an own `compute_loss`, and each run of a `hyperparameter_search` gets its own optimizer.

    Args:
        model, args: As for `Trainer`; the optimizer's settings in `args` are not used.
        l3rs (`str`, `os.PathLike`, [`L3RS`], [`L3RSArtifact`] or [`L3RSNetwork`], *optional*):
            The learned optimizer, as of [`L3RSFactory`]. Without it, `optimizers` must hold one.
        l3rs_kwargs (`dict`, *optional*):
            Arguments of [`L3RS.from_pretrained`], such as `revision` or `lr`, where `l3rs` is to be loaded.
        **kwargs: Everything else that `Trainer` takes, by keyword.

    Example:

    ```python
    L3RSTrainer(model, args, train_dataset=dataset, l3rs="l3rs-resnet-tiny-fashion").train()
    ```
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        l3rs: str | os.PathLike[str] | L3RS | L3RSArtifact | L3RSNetwork | None = None,
        l3rs_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        optimizer = kwargs.get("optimizers", (None, None))[0]
        if l3rs is not None and (optimizer is not None or kwargs.get("optimizer_cls_and_kwargs") is not None):
            raise ConfigError("L3RSTrainer got both l3rs and another optimizer; leave out optimizers= or l3rs=.")
        if l3rs is None and not isinstance(optimizer, L3RS):
            raise ConfigError("L3RSTrainer got no learned optimizer; pass l3rs= with one or its name, or use Trainer.")
        if args is not None:
            refuse_engines(args)
        register()
        self.l3rs_name = os.fspath(l3rs) if isinstance(l3rs, (str, os.PathLike)) else None
        self._template = None if l3rs is None else _as_optimizer(l3rs, l3rs_kwargs or {})
        super().__init__(model, args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, L3RSCallback):
                callback.reads_loss, callback.report_inflation = False, self._divide_loss_itself

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds and binds an [`L3RS`] of its own for each model, unless `optimizers` held one."""
        if self.optimizer is None and self._template is not None:
            own = _unbound_twin(self._template)
            self.optimizer = own.bind(self.model if model is None else model)  # type: ignore[arg-type]
        return super().create_optimizer(model)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Reports the loss, as a share of the step's, to the optimizer; see `Trainer`."""
        loss = super().training_step(*args, **kwargs)
        optimizer = unwrap_optimizer(self.optimizer)
        if optimizer is not None:
            optimizer.observe_loss(loss, is_share=True)
        return loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes the draft of a model card, which names L3RS as the optimizer; see `Trainer`."""
        super().create_model_card(*args, **kwargs)
        card = Path(self.args.output_dir or ".", "README.md")
        if self.is_world_process_zero():
            name = f"`{self.l3rs_name}`" if self.l3rs_name else "of the library hf_l3rs"
            text = card.read_text(encoding="utf-8")
            card.write_text(_name_optimizer(text, f"L3RS {name}, a learned optimizer"), encoding="utf-8")

    def _divide_loss_itself(self) -> None:
        """Takes the loss as a mean over each batch: the model ignores `num_items_in_batch`."""
        self.model_accepts_loss_kwargs = False


def _name_optimizer(card: str, optimizer: str) -> str:
    """Puts `optimizer` in place of the one that `TrainingArguments` names, with its settings."""
    card = re.sub(r"^- optimizer: [^\n]*(?:\n(?!- |\n)[^\n]*)*", f"- optimizer: {optimizer}", card, flags=re.MULTILINE)
    return re.sub(r"^- (?:learning_rate|lr_scheduler_\w+): [^\n]*\n", "", card, flags=re.MULTILINE)
