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
from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.integration.callback import L3RSCallback, register
from hf_l3rs.integration.factory import as_optimizer, own_optimizer
from hf_l3rs.integration.refusals import refuse_engines
from hf_l3rs.integration.unwrap import unwrap_optimizer
from hf_l3rs.learned.network import L3RSNetwork
from hf_l3rs.learned.optimizer import LearnedOptimizer


class L3RSTrainer(Trainer):
    """
    A `Trainer` that trains with an [`L3RS`]. Beyond what the stock `Trainer` does with one, the optimizer sees the
    very loss that is differentiated, label smoothing, `compute_loss_func` and an overridden `compute_loss` included,
    and `model_init` and `hyperparameter_search` work: each run gets an optimizer of its own.

    Args:
        model (`PreTrainedModel` or `nn.Module`, *optional*): As for `Trainer`.
        args (`TrainingArguments`, *optional*): As for `Trainer`; of the optimizer's own settings none is used.
        l3rs (`str`, `os.PathLike`, [`L3RS`], [`L3RSArtifact`] or [`L3RSNetwork`], *optional*):
            The learned optimizer: a Hub id, a folder, an L3RS, whose meta-weights and `lr` are used, or the
            meta-weights. Without it, `optimizers` must hold one.
        l3rs_kwargs (`dict`, *optional*):
            Arguments of [`L3RS.from_pretrained`], such as `revision` or `lr`, where `l3rs` is a Hub id or a folder.
        **kwargs: Everything else that `Trainer` takes, by keyword.

    Raises:
        ConfigError: If there is no learned optimizer, or there are two.
        UnsupportedSetupError: Under DeepSpeed or FSDP.

    Example:

    ```python
    args = TrainingArguments("out", max_steps=100, label_smoothing_factor=0.1)
    trainer = L3RSTrainer(model, args, train_dataset=dataset, l3rs="model_cards/l3rs-resnet-tiny-fashion")
    trainer.train()
    ```
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        l3rs: str | os.PathLike[str] | LearnedOptimizer | L3RSArtifact | L3RSNetwork | None = None,
        l3rs_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        optimizer = kwargs.get("optimizers", (None, None))[0]
        _check_choice(l3rs, optimizer, kwargs.get("optimizer_cls_and_kwargs"))
        if args is not None:
            refuse_engines(args)
        register()
        self.l3rs_name = os.fspath(l3rs) if isinstance(l3rs, (str, os.PathLike)) else None
        self._template = None if l3rs is None else as_optimizer(l3rs, l3rs_kwargs)
        super().__init__(model, args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, L3RSCallback):
                callback.leave_loss_to_trainer(self._divide_loss_itself)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds and binds an [`L3RS`] of its own for each model, unless `optimizers` held one."""
        if self.optimizer is None and self._template is not None:
            own = own_optimizer(self._template)
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
        """
        Goes back to the loss as a mean over each batch, which the Trainer then divides by the accumulation steps, for
        models that take `num_items_in_batch` and ignore it. Called during the first forward pass, before any of this.
        """
        self.model_accepts_loss_kwargs = False


def _check_choice(l3rs: Any, optimizer: Any, factory: Any) -> None:
    """Raises unless there is exactly one learned optimizer."""
    if l3rs is not None and (optimizer is not None or factory is not None):
        raise ConfigError("L3RSTrainer got both l3rs and another optimizer; leave out optimizers= or l3rs=.")
    if l3rs is None and not isinstance(optimizer, LearnedOptimizer):
        raise ConfigError(
            "L3RSTrainer got no learned optimizer; pass l3rs= with a Hub id, a folder or an L3RS, or use Trainer."
        )


def _name_optimizer(card: str, optimizer: str) -> str:
    """Puts the optimizer that trained in place of the one that `TrainingArguments` names, with its unused settings."""
    card = re.sub(r"^- optimizer: [^\n]*(?:\n(?!- |\n)[^\n]*)*", f"- optimizer: {optimizer}", card, flags=re.MULTILINE)
    return re.sub(r"^- (?:learning_rate|lr_scheduler_\w+): [^\n]*\n", "", card, flags=re.MULTILINE)
