"""Many candidates as one learner, through `torch.func.vmap`: faster for small dense models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from hf_l3rs.optimizer.arithmetic import FUNCTIONAL, Tensors
from hf_l3rs.optimizer.batch_norm import batch_norms, temporary_momentum
from hf_l3rs.optimizer.layers import describe_trainable_layers, identify_layers, named_trainable_parameters
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.optimizer.step import LayerStack, LayerState
from hf_l3rs.tasks.inner_loop import Evaluation, clip_to_norm
from hf_l3rs.tasks.task import Batch, State, Task


class Output(NamedTuple):
    """Losses of shape `(num_candidates,)` and logits of shape `(num_candidates, batch_size, num_classes)`."""

    loss: torch.Tensor
    logits: torch.Tensor


class PopulationLearner:
    """
    Copies of one model, each trained by an L3RS with meta-weights of its own: what [`ModelLearner`] does one after
    another, up to rounding.

    Args:
        model (`nn.Module`): Gives the function; its weights are not changed.
        network ([`L3RSNetwork`]): Gives the configuration.
        vectors (`torch.Tensor` of shape `(num_candidates, num_meta_parameters)`): The candidates' ψ.
        num_training_steps (`int`): The horizon K.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
    """

    def __init__(
        self,
        model: nn.Module,
        network: L3RSNetwork,
        vectors: torch.Tensor,
        num_training_steps: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.network, self.num_training_steps = model, network, num_training_steps
        self.device, self._norms = torch.device(device), batch_norms(model)
        self.vectors = vectors.to(self.device)
        self.names = [name for name, _ in named_trainable_parameters(model)]
        self.identity = identify_layers(describe_trainable_layers(model), network.config)

    def start(self, initial_states: Sequence[State]) -> None:
        stacked = {
            name: torch.stack([state[name] for state in initial_states]).to(self.device) for name in initial_states[0]
        }
        self.params = {name: stacked.pop(name).requires_grad_() for name in self.names}
        self.fixed = stacked
        candidates = [param.detach() for param in self.params.values()]
        self.stack = LayerStack(self.network.config, [param[0] for param in candidates])
        steps, ema, buffers = self.stack.initial_state(candidates)  # buffers are of the shapes of what they belong to
        self.state = LayerState(steps, ema.repeat(len(initial_states), 1, 1, 1), buffers)
        self.k = 0

    def step(self, batches: Sequence[Batch]) -> torch.Tensor:
        self.model.train()
        losses = self._forward(_stack(batches, self.device)).loss
        grads = torch.autograd.grad(losses.sum(), list(self.params.values()), materialize_grads=True)
        self.k += 1
        with torch.no_grad():
            in_state = LayerState(None, 0, 0)  # type: ignore[arg-type]  # the steps are the same for all
            update = torch.func.vmap(
                self._update,
                in_dims=(0, 0, 0, in_state, 0),
                out_dims=(0, in_state),  # type: ignore[arg-type]
            )
            detached = [param.detach() for param in self.params.values()]
            params, self.state = update(self.vectors, detached, list(grads), self.state, losses.detach())
        self.params = {name: param.requires_grad_() for name, param in zip(self.names, params)}
        return losses.detach()

    def _update(
        self, vector: torch.Tensor, params: Tensors, grads: Tensors, state: LayerState, loss: torch.Tensor
    ) -> tuple[Tensors, LayerState]:
        """One candidate's step."""
        params, state, _ = self.stack.step(
            self.network.meta_weights(vector).decider(self.identity, self.stack.sqrt_numel),
            params,
            clip_to_norm(grads, self.network.config.max_grad_norm),
            state,
            loss=loss,
            k=self.k,
            num_training_steps=self.num_training_steps,
            arithmetic=FUNCTIONAL,
        )
        return params, state

    @torch.no_grad()
    def evaluate(self, evaluations: Sequence[Sequence[Batch]]) -> list[Evaluation]:
        self.model.eval()
        losses = correct = torch.zeros(len(evaluations), device=self.device)
        count = 0
        distinct = list({id(evaluation): evaluation for evaluation in evaluations}.values())
        rows = [next(i for i, other in enumerate(distinct) if other is one) for one in evaluations]
        for parts in zip(*distinct):  # each image is fetched once
            pixel_values, labels, dim = _stack([parts[row] for row in rows], self.device)
            logits = self._forward((pixel_values, labels, dim)).logits.float()
            labels = labels.expand(logits.shape[:2])
            flat = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            losses = losses + flat.view(len(logits), -1).sum(dim=1)
            correct = correct + (logits.argmax(dim=2) == labels).sum(dim=1)
            count += labels.shape[1]
        return [Evaluation(*pair) for pair in zip((losses / count).tolist(), (correct / count).tolist())]

    def _forward(self, batch: tuple[torch.Tensor, torch.Tensor, int | None]) -> Output:

        def one(state: Mapping[str, torch.Tensor], pixel_values: torch.Tensor, labels: torch.Tensor) -> Any:
            inputs = {"pixel_values": pixel_values, "labels": labels}
            output = torch.func.functional_call(self.model, dict(state), kwargs=inputs)
            return output.loss, output.logits

        pixel_values, labels, dim = batch
        state = {**self.params, **self.fixed}
        with temporary_momentum(self._norms, self.network.config.batch_norm_momentum):
            return Output(*torch.func.vmap(one, in_dims=(0, dim, dim), randomness="same")(state, pixel_values, labels))


def _stack(batches: Sequence[Batch], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    """Images, labels and the dimension that candidates are along; none where all have the very same batch."""
    pixel_values, labels = zip(*batches)
    if all(one is pixel_values[0] for one in pixel_values):
        return pixel_values[0].to(device), labels[0].to(device), None
    return torch.stack(pixel_values).to(device), torch.stack(labels).to(device), 0


@torch.no_grad()
def draws_random_numbers(model: nn.Module, task: Task) -> bool:
    """Whether a training forward pass, such as one with dropout, depends on the random state."""
    batch, state = task.batches[0], {name: tensor.clone() for name, tensor in task.initial_state.items()}
    device = next(model.parameters()).device
    model.train()
    with torch.random.fork_rng():
        before = _random_state(device)
        inputs = {"pixel_values": batch.pixel_values.to(device)}
        torch.func.functional_call(model, {name: tensor.to(device) for name, tensor in state.items()}, kwargs=inputs)
        return not torch.equal(before, _random_state(device))


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)
