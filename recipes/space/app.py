"""
A look inside a learned optimizer, in the browser: λ and μ of every layer over a run, and a race against Adam.

    pip install -e ".[space]"
    python -m recipes.space.app

It listens on http://127.0.0.1:7860, or where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pandas as pd
import torch

from hf_l3rs.errors import L3RSError
from hf_l3rs.evaluation.plots import HIGHLIGHT, MUTED
from hf_l3rs.markdown import markdown_text
from recipes.space import texts
from recipes.space.embedded import (
    DEFAULT_HORIZON,
    HORIZONS,
    MODELS,
    TASKS,
    horizon_of,
    load_network,
    model_of,
    offered,
)
from recipes.space.live_race import DEFAULT_RIVALS, RATES, RIVALS, SEARCHED, Standing, run_race
from recipes.space.look import layers_of, look, shares_of, sizes_of


# One run at a time: a core is all that there may be, and a model is shared.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "runs"}
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none is downloaded
COLORS = (HIGHLIGHT, *MUTED[::3], MUTED[4])  # of L3RS, and of its rivals
STYLE = """
#message {border-left: 4px solid #c1121f; padding-left: 12px}
#picture img {object-fit: contain}
"""
# What every plot shows where there is nothing: with None in place of a table, gradio's plots fail in the browser.
NO_CURVE = pd.DataFrame(
    {name: pd.Series(dtype=float) for name in ("step", "size", "share", "loss", "accuracy")}
    | {name: pd.Series(dtype=str) for name in ("direction", "optimizer")}
)

Updates = dict[Any, Any]


class App:
    """
    The page, and what its parts do. Every choice that is not possible leaves one sentence in the place of a result.
    """

    def __init__(self) -> None:
        with gr.Blocks(title="A look inside L3RS", analytics_enabled=False) as self.page:
            gr.Markdown(texts.INTRODUCTION)
            self._add_choices()
            self.message = gr.Markdown(visible=False, elem_id="message")
            self._add_look()
            self._add_race()
            self._connect()

    def _add_choices(self) -> None:
        names = offered()
        model = model_of(load_network(names[0]).config, otherwise="")
        with gr.Row():
            self.l3rs = gr.Dropdown(
                names,
                value=names[0],
                label="L3RS",
                info=texts.CHOICES,
                allow_custom_value=True,
                elem_id="l3rs",
            )
            self.model = gr.Radio(list(MODELS), value=model, label="Model to fine-tune", elem_id="model")
        with gr.Row():
            self.horizon = gr.Slider(
                HORIZONS.low,
                HORIZONS.high,
                value=DEFAULT_HORIZON,
                step=1,
                label="Horizon",
                info=texts.HORIZON,
                elem_id="horizon",
            )
            self.task = gr.Slider(
                TASKS.low, TASKS.high, value=1, step=1, label="Unseen task", info=texts.TASK, elem_id="task"
            )

    def _add_look(self) -> None:
        gr.Markdown(texts.LOOK)
        self.summary = gr.Markdown(elem_id="summary")
        self.picture = gr.Image(
            label="λ and μ of every layer",
            alt_text="Lines over steps: λ and μ of every layer",
            interactive=False,
            format="png",
            elem_id="picture",
        )
        self.decisions = gr.State()
        self.layer = gr.Dropdown(label="One layer, to be read off", elem_id="layer")
        with gr.Row():
            self.sizes = gr.LinePlot(
                x="step",
                y="size",
                x_title="step",
                y_title="λ / base step",
                label="λ: how large the update of this layer is",
                elem_id="sizes",
            )
            self.shares = gr.LinePlot(
                x="step",
                y="share",
                color="direction",
                x_title="step",
                y_title="μ",
                y_lim=[0, 1],
                label="μ: the share of each direction in it",
                elem_id="shares",
            )

    def _add_race(self) -> None:
        gr.Markdown(texts.RACE)
        with gr.Row():
            self.rivals = gr.CheckboxGroup(list(RIVALS), value=list(DEFAULT_RIVALS), label="Rivals", elem_id="rivals")
            self.rate = gr.Dropdown(
                list(RATES), value=SEARCHED, label="Adam's learning rate", info=texts.RATE, elem_id="rate"
            )
        self.start = gr.Button("Race", variant="primary", elem_id="start")
        with gr.Row():
            self.losses, self.accuracies = (
                gr.LinePlot(
                    x="step",
                    y=metric,
                    color="optimizer",
                    x_title="step",
                    y_title=title,
                    label=title,
                    elem_id=metric,
                )
                for metric, title in (("loss", "test loss"), ("accuracy", "test accuracy, %"))
            )
        self.standing = gr.Markdown(elem_id="standing")
        self.verdict = gr.Markdown(elem_id="verdict")

    def _connect(self) -> None:
        run = [self.l3rs, self.model, self.horizon, self.task]
        shown = [self.message, self.summary, self.picture, self.decisions, self.layer, self.sizes, self.shares]
        raced = [self.message, self.losses, self.accuracies, self.standing, self.verdict]
        chosen = [self.model, self.horizon]
        show = {"fn": self.show, "inputs": [*run, self.layer], "outputs": shown, **ONE_AT_A_TIME}
        self.page.load(**show)
        # what a choice sets is no input of a person, so that one run follows and not three
        self.l3rs.change(self.choose, [self.l3rs, *chosen], chosen, **ONE_AT_A_TIME).success(**show)
        for component in (self.model, self.horizon, self.task):
            component.input(**show, trigger_mode="always_last")
        self.layer.input(self.show_layer, [self.decisions, self.layer], [self.sizes, self.shares])
        self.start.click(self.race, [*run, self.rivals, self.rate], raced, **ONE_AT_A_TIME)

    def choose(self, l3rs: str, model: str, horizon: int) -> Updates:
        """Sets the model and the horizon that an L3RS was made for."""
        try:
            config = load_network(_text(l3rs)).config
        except L3RSError:  # which the look that follows says
            return {self.model: model, self.horizon: horizon}
        return {self.model: model_of(config, otherwise=model), self.horizon: horizon_of(config)}

    def show(self, l3rs: str, model: str, horizon: int, task: int, layer: str | None) -> Updates:
        """Shows what an L3RS decides over a run."""
        try:
            seen = look(_text(l3rs), model, horizon, task)
        except L3RSError as error:
            return {
                self.message: _sentence(error),
                self.layer: gr.Dropdown(choices=[], value=None),
                **dict.fromkeys((self.summary, self.picture, self.decisions)),
                **dict.fromkeys((self.sizes, self.shares), NO_CURVE),
            }
        layers = layers_of(seen.table)
        layer = layer if layer in layers else layers[0]
        return {
            self.message: gr.Markdown(visible=False),
            self.summary: markdown_text(seen.summary),
            self.picture: seen.picture,
            self.decisions: seen.table,
            self.layer: gr.Dropdown(choices=layers, value=layer),
            **self.show_layer(seen.table, layer),
        }

    def show_layer(self, decisions: pd.DataFrame | None, layer: str | None) -> Updates:
        """Shows λ and μ of one layer."""
        if decisions is None or layer is None:
            return dict.fromkeys((self.sizes, self.shares), NO_CURVE)
        return {self.sizes: sizes_of(decisions, layer), self.shares: shares_of(decisions, layer)}

    def race(self, l3rs: str, model: str, horizon: int, task: int, rivals: list[str], rate: str) -> Iterator[Updates]:
        """Shows a race after every evaluation."""
        try:
            for standing in run_race(_text(l3rs), model, horizon, task, rivals, rate):
                yield {self.message: gr.Markdown(visible=False), **self._show_standing(standing, horizon)}
        except L3RSError as error:
            yield {
                self.message: _sentence(error),
                **dict.fromkeys((self.standing, self.verdict)),
                **dict.fromkeys((self.losses, self.accuracies), NO_CURVE),
            }

    def _show_standing(self, standing: Standing, horizon: int) -> Updates:
        names = standing.curves.optimizer.unique()
        options = {"x_lim": [0, horizon], "color_map": dict(zip(names, COLORS))}
        return {
            self.losses: gr.LinePlot(standing.curves, **options),
            self.accuracies: gr.LinePlot(standing.curves, y_lim=[0, 100], **options),
            self.standing: standing.table,
            self.verdict: standing.verdict,
        }


def _text(value: str | None) -> str:
    """What was typed; nothing at all if the field was emptied."""
    return (value or "").strip()


def _sentence(error: L3RSError) -> gr.Markdown:
    return gr.Markdown(markdown_text(error), visible=True)


def main() -> None:
    """Serves the page until it is interrupted."""
    torch.set_num_threads(1)  # small models are fastest so
    logging.basicConfig(level=logging.WARNING)
    App().page.launch(theme=THEME, css=STYLE, footer_links=[], ssr_mode=False)


if __name__ == "__main__":
    main()
