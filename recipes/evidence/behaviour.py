"""Two sentences on what an L3RS learned, from what it decides over a run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recipes.evidence.trajectories import SHARE, directions_of


# How a run begins and ends is the mean over this share of it, at least one step.
_END = 0.1
# A share that moves by less stays, and steps that fall by less are kept.
_NOTABLE_CHANGE = 0.05
_NOTABLE_FALL = 0.8

_PLURALS = {"weight": "weights", "bias": "biases", "embedding": "embeddings", "scale": "scales"}
_MODULES = {"conv": "convolution", "linear_up": "up-projection", "linear_down": "down-projection"}


def name_of(role: str) -> str:
    """Returns what the parameters of a role are called, such as `"convolution weights"` for `"conv.weight"`."""
    module, _, leaf = role.rpartition(".")
    name = _MODULES.get(module, module).replace("_", " ")
    return f"{name} {_PLURALS.get(leaf, leaf)}".strip()


def describe_behaviour(table: pd.DataFrame) -> str:
    """
    Says in two sentences what an L3RS does over a run: how large its steps are, and how it mixes directions.

    Layers of a role are taken together: sizes of steps as geometric means, shares as plain means.

    Args:
        table (`pandas.DataFrame`): Of [`~recipes.evidence.trajectories.to_table`].

    Returns:
        `str`: Such as `"It takes its largest steps in the head weights, 3.1 times the base step after 10 of 50 steps,
        and lowers them to 0.1 times by the end; its smallest are in the norm biases, 0.2 times over the run. Over the
        run the share of adam goes from 80 % to 40 %, most of all in the convolution weights, from 90 % to 30 %."`
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
