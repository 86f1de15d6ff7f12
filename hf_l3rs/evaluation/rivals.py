"""Optimizers that need more than a class of torch: Muon beside Adam, schedule-free AdamW, and a linear probe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import ConfigError
from hf_l3rs.optimizer.directions import is_matrix_for_muon
from hf_l3rs.optimizer.layers import describe_layers, named_trainable_parameters
from hf_l3rs.tasks.distribution import Task
from hf_l3rs.tasks.inner_loop import ModelLearner
from hf_l3rs.tasks.model import State
from hf_l3rs.tasks.pools import Batch


NUM_RECALIBRATION_BATCHES = 50  # that give the statistics of batch norm at the average, as schedule-free's authors do
PROBE_L2 = 0.01  # weight of half the squared norm of a probe's weights beside the mean cross entropy; not tuned


class Combined(torch.optim.Optimizer):
    """Several fresh optimizers, of different classes, that step one after another. Schedulers see all groups."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], **settings: Any) -> None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        parameters = dict.fromkeys(parameter for group in groups for parameter in group["params"])
        defaults = {
            type(each).__name__: {name: value for name, value in each.defaults.items() if name != "lr"}
            for each in optimizers
        }
        super().__init__(list(parameters), {**defaults, **settings})
        self.optimizers = list(optimizers)
        self.param_groups = groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step of each; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


def muon_beside_adam(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """
    Returns torch's Muon for the hidden weights that timm gives to it, and Adam for all else. Kernels of convolutions
    are shown to Muon as matrices with a row for each output channel, as its author does. Updates are scaled to the
    size of Adam's (`match_rms_adamw`, arXiv 2502.16982), so that one learning rate does for both.
    """
    try:
        from torch.optim import Muon
    except ImportError as error:
        raise ConfigError(
            f"Muon needs torch 2.9 or newer, got {torch.__version__}; upgrade it, or name another baseline."
        ) from error
    named = named_trainable_parameters(model)
    hidden = [
        parameter
        for layer, (_, parameter) in zip(describe_layers(named), named)
        if is_matrix_for_muon(parameter.shape) and layer.role != "embedding" and not layer.is_head
    ]
    if not hidden:
        raise ConfigError(
            "Muon needs hidden weights of linear layers or convolutions, and none is trained; name another baseline."
        )
    matrices = [nn.Parameter(weight.detach().view(len(weight), -1)) for weight in hidden]  # of the same memory

    def show_gradients(*_: Any) -> None:
        for weight, matrix in zip(hidden, matrices):
            matrix.grad = None if weight.grad is None else weight.grad.reshape(matrix.shape)

    muon = Muon(matrices, lr=learning_rate, adjust_lr_fn="match_rms_adamw")
    muon.register_step_pre_hook(show_gradients)
    of_muon = set(map(id, hidden))
    rest = [parameter for _, parameter in named if id(parameter) not in of_muon]
    return Combined([muon, torch.optim.Adam(rest, lr=learning_rate)] if rest else [muon])


def schedule_free_adamw(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Returns schedule-free AdamW (Defazio et al., arXiv 2405.15682) of its authors' package."""
    kind = imported("schedulefree", "schedulefree", "AdamWScheduleFree")
    return kind([parameter for _, parameter in named_trainable_parameters(model)], lr=learning_rate)


def imported(package: str, module: str, name: str) -> Any:
    """Returns what a module of an optional package has under a name."""
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"{name} needs the package {package}, which is not installed; run `pip install {package}`, or name "
            "another baseline."
        ) from error


class ScheduleFreeLearner(ModelLearner):
    """Evaluates at the average, with batch norm's statistics taken again over the last training batches."""

    optimizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: deque[Batch] = deque(maxlen=NUM_RECALIBRATION_BATCHES if self._norms else 0)

    def start(self, initial_state: State) -> None:
        super().start(initial_state)
        self._seen.clear()
        self.optimizer.train()

    def step(self, batch: Batch) -> torch.Tensor:
        self._seen.append(batch)
        return super().step(batch)

    @contextmanager
    def at_point_of_evaluation(self) -> Iterator[None]:
        """Has the average in the model. Weights are rounded on the way there and back, so they are restored."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.optimizer.eval()
        self._recalibrate()
        yield
        self.optimizer.train()
        self.model.load_state_dict(before)

    @torch.no_grad()
    def _recalibrate(self) -> None:
        self.model.eval()  # with dropout off: it would draw random numbers
        for norm in self._norms:
            norm.train()
        for batch in self._seen:
            with self.autocast():
                self.model(pixel_values=batch.to(self.device).pixel_values)


def with_probe(model: nn.Module, task: Task, device: torch.device | str = "cpu") -> Task:
    """
    Returns a task whose initial state has a linear probe as its head: multinomial logistic regression on the features
    of all batches of the run, with the model in evaluation mode. The model's state is overwritten.
    """
    model.load_state_dict(dict(task.initial_state))
    name, head = _linear_head(model)
    features, labels = _features(model, head, task, device)
    weight, bias = fit_probe(features, labels, head.out_features)
    probe = {"weight": weight, "bias": bias}
    own = {f"{name}.{key}": probe[key].to(tensor) for key, tensor in head.state_dict().items()}
    return task._replace(initial_state={**task.initial_state, **own})


def _linear_head(model: nn.Module) -> tuple[str, nn.Linear]:
    named = named_trainable_parameters(model)
    layers = zip(describe_layers(named), named)
    names = sorted({name.rpartition(".")[0] for layer, (name, _) in layers if layer.is_head})
    module = model.get_submodule(names[0]) if len(names) == 1 else None
    if isinstance(module, nn.Linear) and module.bias is not None:
        return names[0], module
    raise ConfigError(
        "A linear probe needs a model whose head is one linear layer with a bias that is trained, got the layers "
        f"{', '.join(names) or 'none'}; leave out the baselines Linear probe and LP-FT."
    )


@torch.no_grad()
def _features(
    model: nn.Module, head: nn.Linear, task: Task, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The head's inputs for all images of the run, `(num_images, num_features)`, and their labels."""
    inputs: list[torch.Tensor] = []
    labels = []
    model.eval()
    with head.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(1))):
        for step in range(task.num_training_steps):
            batch = task.batches[step].to(device)
            model(pixel_values=batch.pixel_values)
            labels.append(batch.labels)
    return torch.cat(inputs), torch.cat(labels)


def fit_probe(features: torch.Tensor, labels: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Fits multinomial logistic regression by L-BFGS in float64. Features of shape `(num_images, num_features)` are
    standardised on the way; weights `(num_classes, num_features)` and biases are for features as they are.
    """
    features = features.double()
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    std = torch.where(std > 1e-6 * features.abs().amax(dim=0), std, 1.0)  # of a constant it is rounding
    inputs = (features - mean) / std
    weight = inputs.new_zeros(num_classes, inputs.shape[1], requires_grad=True)
    bias = inputs.new_zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        fit = nn.functional.cross_entropy(inputs @ weight.T + bias, labels)
        loss = fit + PROBE_L2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    weight = weight.detach() / std
    return weight, bias.detach() - weight @ mean
