"""The set-ups of the `Trainer` that cannot work with L3RS, refused before the first step."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from hf_l3rs.errors import BindingError, UnsupportedSetupError
from hf_l3rs.learned.refusals import refuse_sharding


def refuse_engines(args: TrainingArguments) -> None:
    """Raises [`~hf_l3rs.errors.UnsupportedSetupError`] if `args` ask for DeepSpeed or FSDP."""
    active = {"DeepSpeed": bool(args.deepspeed or args.deepspeed_plugin), "FSDP": bool(args.fsdp)}
    refuse_sharding(*(engine for engine, is_active in active.items() if is_active))


def refuse_hidden_loss(args: TrainingArguments, model: Any) -> None:
    """Raises where the training loss is not in the output of the model itself."""
    if args.n_gpu > 1:
        raise UnsupportedSetupError(
            "L3RS cannot read the training loss under nn.DataParallel, which the Trainer uses for "
            f"{args.n_gpu} GPUs in one process; launch with `torchrun --nproc_per_node`, show one GPU by "
            "CUDA_VISIBLE_DEVICES=0, or use hf_l3rs.L3RSTrainer."
        )
    # the Trainer itself drops label smoothing for multi-label classification
    problem_type = getattr(getattr(model, "config", None), "problem_type", None)
    if args.label_smoothing_factor and problem_type != "multi_label_classification":
        raise BindingError(
            f"With label_smoothing_factor={args.label_smoothing_factor} the Trainer computes the loss outside of the "
            "model, where L3RS cannot see it; use hf_l3rs.L3RSTrainer in place of Trainer, or set it to 0."
        )


def refuse_unseen_loss(is_blind: bool) -> None:
    """Raises if the first forward passes showed no loss."""
    if is_blind:
        raise BindingError(
            "L3RS saw no training loss in the model's output, as with compute_loss_func or an own compute_loss; "
            "use hf_l3rs.L3RSTrainer in place of Trainer, which sees every loss."
        )
