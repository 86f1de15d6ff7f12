"""What the released optimizers took to make, as their own configurations tell: a table for the pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_l3rs.hub.artifact import CONFIG_NAME, RELEASED
from hf_l3rs.markdown import duration, markdown_table


HEADERS = ("released", "for", "estimator, stages", "time", "inner steps", "worth plain ones")


def cost_table() -> str:
    """
    Returns a line for each released optimizer, the cheapest first; what a run started from is in its cost. Links start
    from the folder of the cards.
    """
    configs = {path.parent.name: json.loads(path.read_text()) for path in sorted(RELEASED.glob(f"*/{CONFIG_NAME}"))}
    names = sorted(configs, key=lambda name: configs[name]["meta_training"]["cost_in_plain_steps"])
    return markdown_table(HEADERS, [], ("left", "left", "left", "right", "right", "right")) + "".join(
        f"\n{_line(name, configs[name])}" for name in names
    )


def _line(name: str, config: Mapping[str, Any]) -> str:
    run = config["meta_training"]
    cells = (
        f"[{name}]({name}/README.md)",
        _purpose(config),
        f"{run['estimator']}, {_num_stages(run)}",
        duration(run["seconds"]),
        f"{run['inner_steps']:,.0f}",
        f"{run['cost_in_plain_steps']:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _purpose(config: Mapping[str, Any]) -> str:
    """What it fine-tunes."""
    run = config["meta_training"]
    models = [run["base_model"], *run["more_base_models"]] if "more_base_models" in run else [config["base_model"]]
    if len(models) > 1:
        return f"any architecture, from {len(models)} models"
    part = {"all": "", "head": ", the head alone"}
    trainable = run.get("trainable", "all")
    return Path(models[0]).name + part.get(trainable, f", {trainable}")


def _num_stages(run: Mapping[str, Any]) -> int:
    """Meta-trainings one after the other, each from the one before."""
    return 1 + (_num_stages(run["started_from"]) if "started_from" in run else 0)
