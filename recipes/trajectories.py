"""
Shows what an L3RS does with every layer over a run on a validation task (the paper's figures 4 and 5).

    python -m recipes.trajectories recipes/configs/resnet_tiny_fashion.yaml --output_dir outputs/trajectories

OUTPUT_DIR gets trajectories.csv (step and mixture of every layer at every step), trajectories.png and behaviour.json,
two sentences on what the L3RS learned that recipes/release.py puts on the card. The run is as long as the longest that
the L3RS was meta-trained for.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from hf_l3rs import L3RS, L3RSArtifact, L3RSNetwork
from hf_l3rs.cli.main import run_script
from hf_l3rs.distributed import make_accelerator
from hf_l3rs.errors import ConfigError, DataError
from hf_l3rs.evaluation.benchmark import draw_task
from hf_l3rs.evaluation.plots import pyplot, save_figure
from hf_l3rs.files import write_files
from hf_l3rs.hub.results import Results, last_part, write_results
from hf_l3rs.optimizer.layers import describe_layers
from hf_l3rs.optimizer.parameters import all_named
from hf_l3rs.tasks.distribution import Task, build_tasks
from hf_l3rs.tasks.inner_loop import fine_tune, inner_optimizer
from hf_l3rs.validation import Range, check_fields
from recipes.evidence.experiment import own_settings


if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("step", "num_training_steps", "layer", "role", "depth", "relative_step")
SHARE = "share_"  # what the columns of the directions begin with

# How a run begins and ends is the mean over this share of it, at least one step.
_END = 0.1
# A share that moves by less stays, and steps that fall by less are kept.
_NOTABLE_CHANGE = 0.05
_NOTABLE_FALL = 0.8
_PLURALS = {"weight": "weights", "bias": "biases", "embedding": "embeddings", "scale": "scales"}
_MODULES = {"conv": "convolution", "linear_up": "up-projection", "linear_down": "down-projection"}

# Roles side by side in the picture; more of them go below.
MAX_COLUMNS = 7
_DEPTHS = "viridis_r"


class LayerDecision(NamedTuple):
    """What was decided for one layer in one step."""

    step: int  # from 1
    num_training_steps: int
    layer: str
    role: str  # such as "conv.weight"
    depth: float  # from 0, the model's first parameter, to 1, the last
    relative_step: float  # λ per element, in multiples of the configuration's base_step
    mixture: tuple[float, ...]  # μ, the share of each direction


def last_decisions(optimizer: L3RS) -> Iterator[LayerDecision]:
    """Yields what an L3RS decided in its last step for each layer that has a gradient; waits for the device."""
    groups = optimizer.param_groups
    layers = describe_layers(all_named(groups))
    places = {layer.name: index / max(1, len(layers) - 1) for index, layer in enumerate(layers)}
    trained = [(group, param) for group in groups for param in group["params"]]
    moved = [(group, layer) for (group, param), layer in zip(trained, layers) if param.grad is not None]
    decided = optimizer.monitor.decisions
    mixtures = [row for decision in decided for row in decision.mixture.tolist()]
    sizes = [row for decision in decided for row in (decision.update_norms / decision.sqrt_numel).tolist()]
    for (group, layer), mixture, size in zip(moved, mixtures, sizes, strict=True):
        run = (group["step"], group["num_training_steps"])
        relative = size / optimizer.config.base_step
        yield LayerDecision(*run, layer.name, layer.role, places[layer.name], relative, tuple(mixture))


def record_trajectory(
    model: nn.Module, network: L3RSNetwork, task: Task, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Fine-tunes a model on a task with an L3RS, and returns what it decides as a table of [`to_table`]."""
    optimizer = inner_optimizer(model, network, task.num_training_steps)
    decisions: list[LayerDecision] = []
    hook = optimizer.register_step_post_hook(lambda *_: decisions.extend(last_decisions(optimizer)))
    trajectory = fine_tune(model, task, optimizer, device=device, max_grad_norm=network.config.max_grad_norm)
    hook.remove()
    if trajectory.diverged:
        raise DataError("The L3RS diverges on this task, so that its decisions say nothing; choose another task.")
    return to_table(decisions, network.config.directions)


def to_table(decisions: Sequence[LayerDecision], directions: Sequence[str]) -> pd.DataFrame:
    """
    Returns decisions as a table with the columns `step`, `num_training_steps`, `layer`, `role`, `depth`,
    `relative_step` and, for each direction, `share_<direction>`; four significant digits are kept.
    """
    columns = [*COLUMNS, *(f"{SHARE}{name}" for name in directions)]
    table = pd.DataFrame([(*decision[:-1], *decision.mixture) for decision in decisions], columns=columns)
    return pd.read_csv(io.BytesIO(to_csv(table)))


def to_csv(table: pd.DataFrame) -> bytes:
    """Returns a table of [`to_table`] as CSV."""
    return table.to_csv(index=False, float_format="%.4g", lineterminator="\n").encode()


def directions_of(table: pd.DataFrame) -> list[str]:
    """Returns the names of the directions that a table has shares of."""
    return [name.removeprefix(SHARE) for name in table.columns if name.startswith(SHARE)]


def name_of(role: str) -> str:
    """Returns what the parameters of a role are called, such as `"convolution weights"` for `"conv.weight"`."""
    module, _, leaf = role.rpartition(".")
    name = _MODULES.get(module, module).replace("_", " ")
    return f"{name} {_PLURALS.get(leaf, leaf)}".strip()


def describe_behaviour(table: pd.DataFrame) -> str:
    """
    Says in two sentences what an L3RS does over a run: how large its steps are, and how it mixes directions. Layers of
    a role are taken together: sizes of steps as geometric means, shares as plain means.
    """
    return f"{_describe_steps(table)} {_describe_mixture(table)}"


def _describe_steps(table: pd.DataFrame) -> str:
    table = table.assign(log_step=np.log(table.relative_step.clip(lower=1e-12)))
    sizes = np.exp(table.pivot_table(index="step", columns="role", values="log_step"))
    role = sizes.max().idxmax()
    first, peak, length = int(sizes.index[0]), int(sizes[role].idxmax()), int(sizes.index[-1])
    largest, last = sizes[role].max(), sizes[role].iloc[-1]
    when = {first: "at the start", length: "at the end"}.get(peak, f"after {peak} of {length} steps")
    text = f"It takes its largest steps in the {name_of(role)}, {largest:.2g} times the base step {when}"
    if peak != length:
        end = "lowers them to" if last < _NOTABLE_FALL * largest else "keeps them at"
        text += f", and {end} {last:.2g} times by the end"
    means = np.exp(table.groupby("role").log_step.mean())
    smallest = means.idxmin()
    if smallest != role:
        text += f"; its smallest are in the {name_of(smallest)}, {means[smallest]:.2g} times over the run"
    return f"{text}."


def _describe_mixture(table: pd.DataFrame) -> str:
    directions = directions_of(table)
    if len(directions) == 1:
        return f"It has a single direction, {directions[0]}."
    main = max(directions, key=lambda name: table[f"{SHARE}{name}"].mean())
    shares = table.pivot_table(index="step", columns="role", values=f"{SHARE}{main}")
    of_all = table.groupby("step")[f"{SHARE}{main}"].mean()
    count = max(1, round(_END * len(of_all)))
    start, end = of_all.iloc[:count].mean(), of_all.iloc[-count:].mean()
    began, ended = shares.iloc[:count].mean(), shares.iloc[-count:].mean()
    role = (ended - began).abs().idxmax()
    of_role = f"from {began[role]:.0%} to {ended[role]:.0%}"
    text = f"Over the run the share of {main} "
    if abs(end - start) > _NOTABLE_CHANGE:
        text += f"goes from {start:.0%} to {end:.0%}, most of all in the {name_of(role)}, {of_role}"
    elif abs(ended[role] - began[role]) > _NOTABLE_CHANGE:
        text += f"stays near {of_all.mean():.0%}, but goes {of_role} in the {name_of(role)}"
    else:
        means = shares.mean()
        low, high = means.idxmin(), means.idxmax()
        text += f"stays near {of_all.mean():.0%}, from {means[low]:.0%} in the {name_of(low)} to {means[high]:.0%} in "
        text += f"the {name_of(high)}"
    return f"{text}.".replace("%", " %")


def plot_trajectories(table: pd.DataFrame, path: str | Path, title: str) -> None:
    """
    Draws, for each role, the steps of its layers in multiples of the base step, and below them the share of each
    direction, one line a layer, coloured by depth.
    """
    plt = pyplot()
    roles, directions = table.role.unique(), directions_of(table)[:-1] or directions_of(table)
    columns = min(len(roles), MAX_COLUMNS)
    values = {"relative_step": "step / base step", **{f"{SHARE}{name}": f"share of {name}" for name in directions}}
    bands = math.ceil(len(roles) / columns)
    figure, axes = plt.subplots(
        len(values) * bands,
        columns,
        figsize=(max(1.9 * columns, 6), 1.6 * len(values) * bands + 0.8),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_visible(False)
    colors = plt.get_cmap(_DEPTHS)
    for index, role in enumerate(roles):
        band, column = divmod(index, columns)
        for row, (value, label) in enumerate(values.items()):
            axis = axes[len(values) * band + row, column]
            _draw(axis, table[table.role == role], value, colors)
            axis.set_ylabel(label if column == 0 else "", fontsize=8)
            _scale(axis, table[value], is_share=value.startswith(SHARE))
            axis.set_title(name_of(role) if row == 0 else "", fontsize=9)
    figure.colorbar(
        plt.cm.ScalarMappable(cmap=colors), ax=axes, label="depth, from the first layer to the head", shrink=0.6
    )
    figure.supxlabel("step", fontsize=9)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path, to_csv(table), dpi=90)


def _draw(axis: Axes, table: pd.DataFrame, value: str, colors: Any) -> None:
    axis.set_visible(True)
    for _, of_layer in table.groupby("layer", sort=False):
        axis.plot(of_layer.step, of_layer[value], color=colors(of_layer.depth.iloc[0]), linewidth=1.0)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _scale(axis: Axes, values: pd.Series, is_share: bool) -> None:
    """The same for all roles, so that they can be compared, with ticks that are plain numbers."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    if is_share:
        axis.set_ylim(0, 1)
        return
    axis.set_yscale("log")
    low, high = 0.8 * values[values > 0].min(), 1.25 * values.max()
    axis.set_ylim(low, high)
    if high < 10 * low:
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter("{x:g}")


@dataclass
class RunArguments:
    """The run that is shown."""

    num_steps: int | None = field(default=None, metadata={"help": "Its length; by default as meta-trained for."})
    task: int = field(default=0, metadata={"help": "Number of the validation task."})

    def __post_init__(self) -> None:
        check_fields(self, {"num_steps": Range(low=1), "task": Range(low=0)})


def main(argv: list[str] | None = None) -> str:
    """Returns the two sentences."""
    model_args, task_args, args, run = own_settings(argv, RunArguments, __doc__)
    if model_args.more_base_models:
        raise ConfigError("A trajectory is of one base model; leave out more_base_models.")
    torch.set_num_threads(1)
    device = make_accelerator().device
    network, output_dir = L3RSArtifact.from_pretrained(args.l3rs).network, Path(args.output_dir)
    num_steps = run.num_steps or network.config.num_training_steps
    if num_steps is None:
        raise ConfigError("The L3RS does not say for how many steps it was meta-trained; give --num_steps.")
    model, _, validation = build_tasks(model_args, task_args, args.seed)
    model.to(device)
    table = record_trajectory(model, network, draw_task(validation, args.seed, run.task, num_steps), device)
    behaviour, shown_on = describe_behaviour(table), last_part(model_args.base_model)
    if shown_on != last_part(network.config.base_model or ""):
        # an L3RS of many models does not do the same on each
        behaviour = f"On {shown_on}, {behaviour[0].lower()}{behaviour[1:]}"
    write_files(output_dir, {"trajectories.csv": to_csv(table)})
    write_results(Results(network.fingerprint(), (), behaviour), output_dir / "behaviour.json")
    plot_trajectories(table, output_dir / "trajectories.png", f"{Path(args.l3rs).name}: a run of {num_steps} steps")
    sys.stdout.write(f"{behaviour}\n\nTable and picture are in {output_dir}.\n")
    return behaviour


if __name__ == "__main__":
    run_script(main)
