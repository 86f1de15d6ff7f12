"""What an L3RS decides for every layer at every step of a run (paper, figs. 4 and 5)."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

import torch

from hf_l3rs.optimizer.layers import describe_layers
from hf_l3rs.optimizer.optimizer import L3RS
from hf_l3rs.optimizer.parameters import all_named


class LayerDecision(NamedTuple):
    """
    What was decided for one layer in one step.

    Args:
        step (`int`): Of the run, from 1.
        num_training_steps (`int`): Planned length of the run.
        layer (`str`): Name of the parameter.
        role (`str`): Such as `"conv.weight"`.
        depth (`float`): Where the layer stands in the model, from 0, the first parameter, to 1, the last.
        relative_step (`float`): λ per element, as a multiple of the configuration's `base_step`.
        mixture (`tuple[float, ...]`): μ, the share of each direction.
    """

    step: int
    num_training_steps: int
    layer: str
    role: str
    depth: float
    relative_step: float
    mixture: tuple[float, ...]


class TrajectoryRecorder:
    """
    Keeps what an L3RS decides while it trains, in any loop and in the Trainer. Each step waits for the device.

    Args:
        optimizer ([`~hf_l3rs.optimizer.optimizer.L3RS`]): Whose steps are recorded; all on one device.

    Example:

    ```python
    with TrajectoryRecorder(optimizer) as recorder:
        trainer.train()
    print(recorder.decisions[0])
    ```
    """

    def __init__(self, optimizer: L3RS) -> None:
        self.optimizer = optimizer
        self.decisions: list[LayerDecision] = []
        self._handle: Any = None

    def __enter__(self) -> TrajectoryRecorder:
        self._handle = self.optimizer.register_step_post_hook(self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def _record(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        groups = self.optimizer.param_groups
        layers = describe_layers(all_named(groups))
        places = {layer.name: index / max(1, len(layers) - 1) for index, layer in enumerate(layers)}
        trained = [(group, param) for group in groups for param in group["params"]]
        moved = [(group, layer) for (group, param), layer in zip(trained, layers) if param.grad is not None]
        decided = self.optimizer.monitor.decisions
        mixtures = [row for decision in decided for row in decision.mixture.tolist()]
        sizes = [row for decision in decided for row in (decision.update_norms / decision.sqrt_numel).tolist()]
        for (group, layer), mixture, size in zip(moved, mixtures, sizes, strict=True):
            self.decisions.append(
                LayerDecision(
                    step=group["step"],
                    num_training_steps=group["num_training_steps"],
                    layer=layer.name,
                    role=layer.role,
                    depth=places[layer.name],
                    relative_step=size / self.optimizer.config.base_step,
                    mixture=tuple(mixture),
                )
            )
