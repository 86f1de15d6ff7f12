"""The inner loops of many candidates as one, through `torch.func.vmap`: faster for small dense models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.learned.config import L3RSConfig
from hf_l3rs.learned.layers import describe_layers, match_layers, named_trainable_parameters
from hf_l3rs.learned.network import L3RSNetwork, mixture_and_scale
from hf_l3rs.learned.optimizer import LearnedOptimizer
from hf_l3rs.learned.step import LayerBank
from hf_l3rs.meta.candidates import MetaLoss, Rollout
from hf_l3rs.tasks.inner_loop import Autocast, Evaluation, Trajectory, explosion_threshold
from hf_l3rs.tasks.task import Batch, Task


class PopulationNetwork:
    """
    The networks of several candidates, evaluated at once; a stand-in for [`L3RSNetwork`] inside the optimizer.

    Args:
        config ([`L3RSConfig`]): Of every candidate.
        vectors (`torch.Tensor` of shape `(num_candidates, num_meta_parameters)`): Their meta-weights ψ.
    """

    def __init__(self, config: L3RSConfig, vectors: torch.Tensor) -> None:
        self.config = config
        shapes = [parameter.shape for parameter in L3RSNetwork(config).parameters()]
        chunks = vectors.split([shape.numel() for shape in shapes], dim=1)
        tensors = [chunk.reshape(len(vectors), *shape) for chunk, shape in zip(chunks, shapes)]
        num_layers = (len(tensors) - 1) // 2
        self.embeddings, self.weights, self.biases = tensors[0], tensors[1 : num_layers + 1], tensors[num_layers + 1 :]
        self.num_candidates = len(vectors)

    def fingerprint(self) -> str:
        """Candidates are not artefacts: nothing is ever saved that this would have to identify."""
        return "population"

    def place(self, device: torch.device, dtype: torch.dtype) -> PopulationNetwork:
        """Moves the network; see [`L3RSNetwork.place`]."""
        self.weights = [weight.to(device, dtype) for weight in self.weights]
        self.biases = [bias.to(device, dtype) for bias in self.biases]
        return self

    def embed(self, embedding_weights: torch.Tensor) -> torch.Tensor:
        """Returns embeddings of shape `(num_candidates * num_layers, embedding_size)`, candidate by candidate."""
        weights = embedding_weights.view(self.num_candidates, -1, embedding_weights.shape[1])
        return torch.bmm(weights.double().cpu(), self.embeddings.double().cpu()).flatten(0, 1)

    def __call__(self, features: torch.Tensor, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As [`L3RSNetwork.forward`], with `num_candidates * num_layers` rows."""
        hidden = torch.cat((features, embeddings), dim=1).unflatten(0, (self.num_candidates, -1))
        for weight, bias in zip(self.weights, self.biases):
            output = torch.baddbmm(bias[:, None], hidden, weight.transpose(1, 2))
            hidden = nn.functional.silu(output)
        return mixture_and_scale(output.flatten(0, 1))


class PopulationL3RS(LearnedOptimizer):
    """
    One [`L3RS`] that steps the models of all candidates, each with meta-weights of its own. The layers of all
    candidates are the layers of one bank, so that the step is the very one that ships.

    Args:
        named_parameters (`Mapping[str, torch.Tensor]`): Parameters of shape `(num_candidates, *shape)`.
        network ([`PopulationNetwork`]): The candidates' networks.
        num_training_steps (`int`): Planned length K of the run.
    """

    def __init__(
        self, named_parameters: Mapping[str, torch.Tensor], network: PopulationNetwork, num_training_steps: int
    ) -> None:
        self._stacked = named_parameters
        self._slices = [
            (f"{candidate}.{name}", tensor.detach()[candidate].requires_grad_())
            for candidate in range(network.num_candidates)
            for name, tensor in named_parameters.items()
        ]
        super().__init__(
            self._slices,
            network=network,  # type: ignore[arg-type]
            num_training_steps=num_training_steps,
            synchronize_loss=False,
        )

    def _match_layers(self, model: nn.Module | None) -> None:
        layers = describe_layers((name, tensor[0]) for name, tensor in self._stacked.items())
        weights, _ = match_layers(layers, self.config.layers)
        rows = {layer.name: row for layer, row in zip(layers, weights)}
        self._embedding_weights = {name: rows[name.partition(".")[2]] for name, _ in self._slices}

    @torch.no_grad()
    def step_population(self, losses: torch.Tensor) -> None:
        """
        Takes one step of every candidate.

        Args:
            losses (`torch.Tensor` of shape `(num_candidates,)`): Their training losses.
        """
        grads = [tensor.grad for tensor in self._stacked.values()]
        by_candidate = zip(*(grad.unbind(0) for grad in grads if grad is not None))
        for (_, view), grad in zip(self._slices, (grad for grads in by_candidate for grad in grads)):
            view.grad = grad
        (group,) = self.param_groups
        group["step"] += 1
        bank: LayerBank = self._bank(0, group, group["params"])
        self._update(group, group["num_training_steps"], bank, losses.repeat_interleave(len(self._stacked)))
        for tensor in self._stacked.values():
            tensor.grad = None


class Output(NamedTuple):
    """Losses of shape `(num_candidates,)` and logits of shape `(num_candidates, batch_size, num_classes)`."""

    loss: torch.Tensor
    logits: torch.Tensor


def rollout_population(
    model: nn.Module,
    config: L3RSConfig,
    vectors: torch.Tensor,
    tasks: Sequence[Task],
    *,
    meta_loss: MetaLoss | None = None,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
) -> list[Rollout]:
    """
    Scores candidates on tasks as [`~hf_l3rs.meta.candidates.rollout`] does one after another, up to rounding. Where
    the model drops out, all candidates drop the same.

    Args:
        model (`nn.Module`): Gives the function; its weights are not changed. All its parameters must be trainable.
        config ([`L3RSConfig`]): Of every candidate.
        vectors (`torch.Tensor` of shape `(num_candidates, num_meta_parameters)`): The candidates.
        tasks (`Sequence[Task]`): The task of each candidate; all of the same horizon and sizes.
        meta_loss ([`MetaLoss`], *optional*): Defaults to the paper's, the final evaluation loss.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where `model` is.
        autocast (`Callable`, *optional*): Makes the context of forward passes.

    Returns:
        `list[Rollout]`: One for each candidate.

    Raises:
        ConfigError: In mixed precision: under vmap, autocast passes linear layers by.
    """
    _refuse_mixed_precision(device, autocast)
    (num_steps,) = {task.num_training_steps for task in tasks}
    trainable = {name for name, _ in named_trainable_parameters(model)}
    stacked = {
        name: torch.stack([task.initial_state[name] for task in tasks]).to(device) for name in tasks[0].initial_state
    }
    params = {name: tensor.requires_grad_() for name, tensor in stacked.items() if name in trainable}
    fixed = {name: tensor for name, tensor in stacked.items() if name not in trainable}
    optimizer = PopulationL3RS(params, PopulationNetwork(config, vectors), num_steps)
    history = []
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tasks[0].seed)
        for step in range(num_steps):
            batch = _stack([(task, task.batches[step]) for task in _distinct(tasks)], tasks, device)
            with autocast():
                losses = _forward(model, {**params, **fixed}, batch).loss
            losses.sum().backward()
            optimizer.step_population(losses.detach())
            history.append(losses.detach())
    evaluations = _evaluate(model, {**params, **fixed}, tasks, device, autocast)
    scores = []
    for task, evaluation, curve in zip(tasks, evaluations, torch.stack(history).cpu().unbind(1)):
        diverged = not float(curve.max()) <= explosion_threshold(task)
        trajectory = Trajectory({num_steps: evaluation}, float(curve.mean()), num_steps, diverged)
        final = Evaluation(math.inf, 0.0) if diverged else evaluation
        scores.append(Rollout((meta_loss or MetaLoss())(trajectory), final.loss, final.accuracy, num_steps))
    return scores


def _refuse_mixed_precision(device: torch.device | str, autocast: Autocast) -> None:
    with autocast():
        if torch.is_autocast_enabled(torch.device(device).type):
            raise ConfigError(
                "Candidates that run as one through vmap cannot run in mixed precision; set vectorized_pairs to 0, or "
                "mixed_precision to 'no'."
            )


def _distinct(tasks: Sequence[Task]) -> list[Task]:
    """The tasks without repetitions: antithetic twins, or all candidates, share one."""
    return list({task.seed: task for task in tasks}.values())


def _stack(
    batches: Sequence[tuple[Task, Batch]], tasks: Sequence[Task], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    """Images, labels and the dimension that candidates are along; none where all have the same batch."""
    if len(batches) == 1:
        batch = batches[0][1].to(device)
        return batch.pixel_values, batch.labels, None
    position = {task.seed: index for index, (task, _) in enumerate(batches)}
    rows = torch.tensor([position[task.seed] for task in tasks])
    pixel_values, labels = (torch.stack(part)[rows].to(device) for part in zip(*(batch for _, batch in batches)))
    return pixel_values, labels, 0


def _forward(
    model: nn.Module, state: Mapping[str, torch.Tensor], batch: tuple[torch.Tensor, torch.Tensor, int | None]
) -> Output:
    """The losses, of shape `(num_candidates,)`, and logits of all candidates."""

    def one(state: Mapping[str, torch.Tensor], pixel_values: torch.Tensor, labels: torch.Tensor) -> Any:
        output = torch.func.functional_call(
            model, dict(state), kwargs={"pixel_values": pixel_values, "labels": labels}
        )
        return output.loss, output.logits

    pixel_values, labels, dim = batch
    return Output(*torch.func.vmap(one, in_dims=(0, dim, dim), randomness="same")(state, pixel_values, labels))


@torch.no_grad()
def _evaluate(
    model: nn.Module,
    state: Mapping[str, torch.Tensor],
    tasks: Sequence[Task],
    device: torch.device | str,
    autocast: Autocast,
) -> list[Evaluation]:
    """Evaluates all candidates, part by part of their evaluation sets."""
    model.eval()
    distinct = _distinct(tasks)
    losses, correct, count = torch.zeros(len(tasks)), torch.zeros(len(tasks)), 0
    for parts in zip(*(task.evaluation for task in distinct)):
        batch = _stack(list(zip(distinct, parts)), tasks, device)
        with autocast():
            logits = _forward(model, state, batch).logits.float()
        labels = batch[1].expand(logits.shape[:2])
        flat = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses += flat.view(len(tasks), -1).sum(dim=1).cpu()
        correct += (logits.argmax(dim=2) == labels).sum(dim=1).cpu()
        count += labels.shape[1]
    return [Evaluation(loss / count, right / count) for loss, right in zip(losses.tolist(), correct.tolist())]
