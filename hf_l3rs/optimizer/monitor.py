"""What the user is told of the steps: statistics when asked, warnings once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from hf_l3rs.markdown import listed
from hf_l3rs.optimizer.config import LONG_RUN
from hf_l3rs.optimizer.fit import Fit
from hf_l3rs.optimizer.step import Decision


logger = logging.getLogger("hf_l3rs.optimizer")

# How many layers a warning names: a model may have hundreds.
NUM_EXAMPLES = 3
# A multiplier below this is taken for a learning rate.
SMALL_LR = 0.05


class StepMonitor:
    """Keeps the decisions of the last step, and remembers what it has warned of; of nothing if it is `quiet`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.decisions: Sequence[Decision] = ()
        self._warned: set[str] = set()

    def observe(self, decisions: Sequence[Decision]) -> None:
        self.decisions = decisions  # looked into now only where that does not wait for a device
        flags = (decision.is_usable for decision in decisions)
        self._count_skipped(flag for flag in flags if flag is not None and flag.device.type == "cpu")

    def statistics(self, directions: Sequence[str]) -> dict[str, float]:
        if not self.decisions:
            return {}
        mixture = torch.cat([decision.mixture.cpu() for decision in self.decisions])
        sizes = torch.cat([(decision.update_norms / decision.sqrt_numel).cpu() for decision in self.decisions])
        values = torch.cat((mixture.mean(dim=0), torch.stack((sizes.mean(), sizes.min(), sizes.max())))).tolist()
        names = [f"mixture_{name}" for name in directions]
        skipped = self._count_skipped(decision.is_usable for decision in self.decisions)
        statistics = dict(zip([*names, "step_size", "step_size_min", "step_size_max"], values))
        return statistics | ({"skipped_layers": skipped} if skipped else {})

    def _count_skipped(self, flags: Iterable[torch.Tensor | None]) -> int:
        skipped = sum(int((~is_usable).sum()) for is_usable in flags if is_usable is not None)
        if skipped:
            self._warn(
                "gradient",
                f"The gradients of {skipped} layers are not numbers, or are too large to be squared; those layers are "
                "left alone, at this step and at every such step.",
            )
        return skipped

    def warn_without_loss(self, model: nn.Module | None) -> None:
        why = "call optimizer.step(loss), or let the model compute the loss from its labels."
        if model is not None and not model.training:
            why = "the model is in evaluation mode, in which its loss is not read; call model.train()."
        self._warn("loss", f"L3RS was meta-trained with the training loss but takes steps without it: {why}")

    def warn_of_plan(self, groups: Sequence[dict[str, Any]], trained_steps: int | None) -> None:
        """Warns of a tiny multiplier, of a run far longer than those of meta-training, and of one past its plan."""
        if self.quiet:
            return
        step, planned = groups[0]["step"], groups[0]["num_training_steps"]
        lr = max(group.get("initial_lr", group["lr"]) for group in groups)  # a schedule may begin at nothing
        if step == 0 and 0 < lr < SMALL_LR:
            self._warn(
                "lr",
                "L3RS's lr is a multiplier on the learned step, 1.0 as meta-trained, and no learning rate: at "
                f"{lr:g} it trains at a fraction of that; leave lr out.",
            )
        if planned is None or lr == 0:
            return
        if trained_steps is not None and planned > LONG_RUN * trained_steps:
            self._warn(
                "horizon",
                f"The run is planned for {planned} steps, but this L3RS was meta-trained for up to {trained_steps}; a "
                "tuned Adam may be better: compare, or meta-train it for longer runs (initial_l3rs).",
            )
        if step >= planned:
            self._warn(
                "plan",
                f"The run goes on past the {planned} steps that L3RS was told of, with steps as small as at the end "
                "of a run; give bind the real number by num_training_steps.",
            )

    def warn_of_misfit(self, fit: Fit) -> None:
        misfits = fit.misfits
        if misfits and not self.quiet:
            more = [f"{len(misfits) - NUM_EXAMPLES} more"] if len(misfits) > NUM_EXAMPLES else []
            logger.warning(
                "This L3RS %s; unknown layers take the mean embedding of their kind, with less gain: compare with a "
                "tuned Adam, or meta-train for this model from it (initial_l3rs); what does not fit is %s.",
                fit.describe(),
                listed([*misfits[:NUM_EXAMPLES], *more]),
            )

    def warn_of_rounding(self, params: Iterable[torch.Tensor]) -> None:
        low = {str(param.dtype) for param in params if param.dtype in (torch.bfloat16, torch.float16)}
        if low:
            self._warn(
                "rounding",
                f"Parameters are {low.pop().removeprefix('torch.')}, which rounds small updates away; keep float32 "
                "copies by L3RS(..., float32_copy=True), or train float32 parameters under autocast.",
            )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned and not self.quiet:
            self._warned.add(kind)
            logger.warning(message)
