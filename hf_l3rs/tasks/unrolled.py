"""A run as a function of the meta-weights: an inner loop that can be differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hf_l3rs.optimizer.batch_norm import batch_norms, temporary_momentum
from hf_l3rs.optimizer.directions import FUNCTIONAL, Tensors
from hf_l3rs.optimizer.layers import describe_trainable_layers, identify_layers, named_trainable_parameters
from hf_l3rs.optimizer.network import L3RSNetwork, LayersNetwork
from hf_l3rs.optimizer.step import LayerStack, LayerState
from hf_l3rs.tasks.inner_loop import Autocast, Evaluation
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch


class Snapshot(NamedTuple):
    """The state of a run, without a graph."""

    params: Tensors  # θ
    state: LayerState
    fixed: dict[str, torch.Tensor]  # what is not trained, such as running statistics
    k: int  # steps taken
    random_state: torch.Tensor  # of the CPU's generator after the last step, from which dropout goes on


class UnrolledLearner:
    """
    A run that keeps the graph from ψ to every loss: a [`~hf_l3rs.tasks.inner_loop.Learner`]. The model gives the
    function, and its weights are not changed; the network gives the configuration.
    """

    def __init__(
        self,
        model: nn.Module,
        network: L3RSNetwork,
        vector: torch.Tensor,  # ψ, of shape (num_meta_parameters,)
        num_training_steps: int,  # the horizon K
        *,
        second_order: bool = True,  # inner gradients are differentiated as well, not taken as constants
        feature_gradient: bool = False,  # also through what the network sees, not only through what it decides
        device: torch.device | str = "cpu",
        autocast: Autocast = nullcontext,
        begin: Snapshot | None = None,  # where the run is taken up; by default it starts at θ0
        keep_graph: bool = True,  # without it, the same run takes less time and the memory of one step
    ) -> None:
        self.model, self.network, self.num_training_steps = model, network, num_training_steps
        self.vector, self.begin, self.keep_graph = vector, begin, keep_graph
        self.second_order, self.feature_gradient = second_order, feature_gradient
        self.device, self.autocast, self._norms = torch.device(device), autocast, batch_norms(model)
        self.names = [name for name, _ in named_trainable_parameters(model)]
        self.identity = identify_layers(describe_trainable_layers(model), network.config)
        self.params: Tensors
        self.state: LayerState
        self.k: int
        self.decider: LayersNetwork
        self.losses: list[torch.Tensor] = []  # of training, each before its step, with their graph
        self.evaluation_losses: list[torch.Tensor] = []  # so far, with their graph

    def start(self, initial_state: State) -> None:
        fixed = {name: tensor.to(self.device, copy=True) for name, tensor in initial_state.items()}
        params = [fixed.pop(name) for name in self.names]
        self.stack = LayerStack(self.network.config, params)
        fresh = Snapshot(params, self.stack.initial_state(params), fixed, 0, torch.get_rng_state())
        self.resume(self.begin or fresh)

    def step(self, batch: Batch) -> torch.Tensor:
        batch = batch.to(self.device)
        self.model.train()
        loss = self._forward({"pixel_values": batch.pixel_values, "labels": batch.labels}).loss
        create_graph = self.second_order and self.keep_graph
        grads = torch.autograd.grad(loss, self.params, create_graph=create_graph, materialize_grads=True)
        if not create_graph:  # the graph of the forward pass is used up
            loss = loss.detach()
        self.k += 1
        self.random_state = torch.get_rng_state()
        with torch.set_grad_enabled(self.keep_graph):
            self.params, self.state, _ = self.stack.step(
                self.decider,
                self.params,
                clip_to_norm(list(grads), self.network.config.max_grad_norm),
                self.state,
                loss=loss,
                k=self.k,
                num_training_steps=self.num_training_steps,
                arithmetic=FUNCTIONAL,
                feature_gradient=self.feature_gradient,
            )
        if not self.keep_graph:
            for param in self.params:
                param.requires_grad_()
        self.losses.append(loss)
        return loss.detach()

    def evaluate(self, evaluation: Sequence[Batch]) -> Evaluation:
        self.model.eval()
        losses, correct, count = [], 0, 0
        for batch in evaluation:
            batch = batch.to(self.device)
            with torch.set_grad_enabled(self.keep_graph):
                logits = self._forward({"pixel_values": batch.pixel_values}).logits
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            losses.append(nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == batch.labels).sum())
            count += len(batch.labels)
        loss = torch.stack(losses).sum() / count
        self.evaluation_losses.append(loss)
        return Evaluation(float(loss.detach()), correct / count)

    def snapshot(self) -> Snapshot:
        """Returns where the run stands."""
        params, state = [param.detach() for param in self.params], self.state
        buffers = {name: [tensor.detach() for tensor in own] for name, own in state.buffers.items()}
        fixed = {name: tensor.clone() for name, tensor in self.fixed.items()}
        return Snapshot(params, LayerState(state.steps, state.ema.detach(), buffers), fixed, self.k, self.random_state)

    def resume(self, snapshot: Snapshot) -> None:
        """Goes on from there, with a graph that begins there."""
        params, state, fixed, self.k, self.random_state = snapshot
        torch.set_rng_state(self.random_state)
        self.params = [param.detach().requires_grad_() for param in params]
        buffers = {name: [tensor.detach().requires_grad_() for tensor in own] for name, own in state.buffers.items()}
        self.state = LayerState(state.steps, state.ema.detach().requires_grad_(), buffers)
        self.fixed = {name: tensor.clone() for name, tensor in fixed.items()}
        self.decider = self.network.for_layers(self.identity, self.stack.sqrt_numel, self.vector)
        self.losses, self.evaluation_losses = [], []

    def carried(self) -> Tensors:
        """Returns what links one step to the next: parameters, averages, buffers."""
        return [*self.params, self.state.ema, *(tensor for own in self.state.buffers.values() for tensor in own)]

    def _forward(self, inputs: dict[str, torch.Tensor]) -> Any:
        state = {**dict(zip(self.names, self.params)), **self.fixed}
        # fused attention cannot be differentiated twice
        attention = sdpa_kernel(SDPBackend.MATH) if self.second_order else nullcontext()
        norms = temporary_momentum(self._norms, self.network.config.batch_norm_momentum)
        with self.autocast(), attention, norms:
            return torch.func.functional_call(self.model, state, kwargs=inputs)


def clip_to_norm(grads: Tensors, max_norm: float | None) -> Tensors:
    """Returns gradients scaled down to a global norm, if one is given, as `torch.nn.utils.clip_grad_norm_` does."""
    if max_norm is None:
        return grads
    share = (max_norm / (FUNCTIONAL.norms(grads).norm() + 1e-6)).clamp(max=1.0)
    return FUNCTIONAL.mul_(grads, [share] * len(grads))
