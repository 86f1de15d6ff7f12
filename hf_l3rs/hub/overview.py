"""What a card says first: when an L3RS pays, as it was measured, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_l3rs.hub.results import OPTIMIZER_NAME, Result
from hf_l3rs.markdown import duration, listed, markdown_text


# How results call what an L3RS was made for.
IN_DOMAIN = "in domain"
# Learning rates of a search, as an evaluation has it.
NUM_RATES = 11


def describe_gain(entries: Sequence[Result]) -> str | None:
    """
    Says after how many steps an L3RS is ahead of what it was compared with.

    Args:
        entries (`Sequence[Result]`): What was measured.

    Returns:
        `str` or `None`: Such as `"Measured on unseen tasks, its mean loss is lower than that of the best baseline
        after 20 and 50 steps, not after 10 (in domain: digits)."`; `None` where nothing was compared.
    """
    own = [each for each in entries if each.optimizer == OPTIMIZER_NAME and each.baseline_loss is not None]
    places: dict[tuple[str, str], list[str]] = {}  # settings by what was found, and on which data
    for place in dict.fromkeys((each.setting, each.shown_dataset) for each in own):
        here = [each for each in own if (each.setting, each.shown_dataset) == place]
        setting, dataset = map(markdown_text, (place[0] or "", place[1]))
        places.setdefault((_found(here), dataset), []).append(setting)
    parts = []
    for (found, dataset), settings in places.items():
        where = "; ".join(filter(None, settings))
        parts.append(f"{found} ({where}{': ' if where else ''}{dataset})")
    if not parts:
        return None
    return f"Measured on unseen tasks, its mean loss is lower than that of the best baseline {'; '.join(parts)}."


def _found(results: Sequence[Result]) -> str:
    """After how many steps the loss is lower than the best baseline's, and after how many it is not."""
    ahead = sorted({each.num_training_steps for each in results if each.loss < (each.baseline_loss or 0)})
    behind = sorted({each.num_training_steps for each in results} - {*ahead})
    found = [f"after {listed(ahead)} steps"] if ahead else []
    found += [f"not after {listed(behind)}{'' if ahead else ' steps'}"] if behind else []
    return ", ".join(found)


def describe_cost(meta_training: Mapping[str, Any], directions: Iterable[str]) -> str | None:
    """
    Says what making an L3RS took, and what is known of its step.

    Args:
        meta_training (`Mapping[str, Any]`): Of [`~hf_l3rs.L3RSConfig`].
        directions (`Iterable[str]`): What it mixes.

    Returns:
        `str` or `None`: `None` where nothing is known.
    """
    inner, plain, seconds = (
        _number(meta_training.get(name)) for name in ("inner_steps", "cost_in_plain_steps", "seconds")
    )
    sentences = []
    if inner is not None:
        worth = f", worth {plain:,.0f} plain ones" if plain is not None and plain > inner else ""
        time = f", in {duration(seconds)}" if seconds is not None else ""
        sentences.append(f"Making it took {inner:,.0f} inner steps{worth}{time}.")
    if "muon" in directions:
        sentences.append("With Muon among its directions, its step takes several times as long as Adam's on a CPU.")
    return " ".join(sentences) or None


def describe_payback(meta_training: Mapping[str, Any], longest: int | None, entries: Sequence[Result]) -> str | None:
    """
    Says after how many runs an L3RS has saved the steps that making it took.

    Args:
        meta_training (`Mapping[str, Any]`): Of [`~hf_l3rs.L3RSConfig`].
        longest (`int`, *optional*): The longest run of meta-training, in steps; longer ones count for nothing here.
        entries (`Sequence[Result]`): What was measured; the longest runs in domain up to `longest` count.

    Returns:
        `str` or `None`: `None` where that is not known.
    """
    cost = _number(meta_training.get("cost_in_plain_steps"))
    own = [
        each
        for each in entries
        if each.optimizer == OPTIMIZER_NAME and each.setting == IN_DOMAIN and each.num_training_steps <= (longest or 0)
    ]
    result = max(own, key=lambda each: each.num_training_steps, default=None)
    if not cost or result is None or result.step_ratio is None or result.num_diverged:
        return None
    steps, more = result.num_training_steps, result.step_ratio - 1  # in runs of the rival for the same loss
    searching = _runs(cost / (steps * (more + NUM_RATES - 1)))
    text = f"In runs of {steps} steps its making is paid back after about {searching} runs"
    text += f" beside a search of {NUM_RATES} learning rates for each"
    if result.step_ratio_bound is None and more > 0:
        text += f", about {_runs(cost / (steps * more))} beside the best rival at a known rate"
    return f"{text}."


def _runs(count: float) -> str:
    """A number of runs to two digits, which is more than is known."""
    digits = max(len(str(math.ceil(count))) - 2, 0)
    return f"{round(math.ceil(count), -digits):,}"


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None
