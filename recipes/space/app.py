"""
A look inside a learned optimizer, in the browser: λ and μ of every layer over a run, and a race against Adam.

    pip install -e ".[space]"
    python -m recipes.space.app

It listens on http://127.0.0.1:7860, or where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import pandas as pd
import torch

from hf_l3rs.errors import L3RSError
from hf_l3rs.markdown import markdown_text
from recipes.space.runs import HORIZONS, MODELS, TASKS, fitting_models, load_network, look, offered, race


INTRODUCTION = """\
# A look inside a learned optimizer

**L3RS fine-tunes a pretrained vision model with nothing to tune.** At every step, a small meta-trained network decides
for every layer *l* of the model **λ, how large the update is**, and **μ, how directions are mixed**: which share of
the update comes from Adam's direction, which from plain SGD's, and so on.

> Δθ(l) = −λ(l) · Σₚ μ(l)ₚ · dₚ(l) / ‖dₚ(l)‖

Everything below runs live, on images of Fashion-MNIST that the listed L3RSs never saw.
[The paper](https://arxiv.org/abs/2408.09310) has the method; this implementation is independent of its authors.
"""
LOOK = """\
## 1. What it decides, layer by layer

Each line is a layer, each column a kind of layers: yellow lines are near the input, dark ones near the head.
**"step / base step" is λ**, on a logarithmic scale; **"share of ..." is μ**, a row for each direction.
"""
RACE = """\
## 2. Race it against Adam

All start from the same pretrained model with the same new head, and get the same batches in the same order. L3RS has
no learning rate. Adam's is 1e-3, and the one that a search on other images found best for runs of about this length.
One task says little: try others, or see the tables of README, which are over sixteen.
"""
# One run at a time: a core is all that there may be, and a model is shared.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "runs"}
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none is downloaded
# What the plot shows where there is nothing: with None in place of a table, gradio's plots fail in the browser.
NO_CURVE = pd.DataFrame({"step": [0.0], "loss": [0.0], "optimizer": [""]}).iloc[:0]

Updates = dict[Any, Any]


class App:
    """The page, and what its parts do. A choice that is not possible leaves one sentence in the place of a result."""

    def __init__(self) -> None:
        name, model = next(iter(offered().items()))
        with gr.Blocks(title="A look inside L3RS", analytics_enabled=False) as self.page:
            gr.Markdown(INTRODUCTION)
            with gr.Row():
                self.l3rs = gr.Dropdown(
                    list(offered()),
                    value=name,
                    label="L3RS",
                    info="One that is listed, a folder, or a Hub id such as user/name and Enter.",
                    allow_custom_value=True,
                )
                self.model = gr.Radio(list(MODELS), value=model, label="Model to fine-tune")
            with gr.Row():
                self.horizon = gr.Slider(HORIZONS.low, HORIZONS.high, value=20, step=1, label="Steps of the run")
                self.task = gr.Slider(TASKS.low, TASKS.high, value=1, step=1, label="Unseen task")
            self.message = gr.Markdown(visible=False)
            gr.Markdown(LOOK)
            self.summary = gr.Markdown()
            self.picture = gr.Image(label="λ and μ of every layer", interactive=False, format="png")
            gr.Markdown(RACE)
            self.start = gr.Button("Race", variant="primary")
            self.losses = gr.LinePlot(x="step", y="loss", color="optimizer", y_title="test loss", label="test loss")
            self.ends = gr.Markdown()
            self._connect()

    def _connect(self) -> None:
        run = [self.l3rs, self.model, self.horizon, self.task]
        show = {"fn": self.show, "inputs": run, "outputs": [self.message, self.summary, self.picture], **ONE_AT_A_TIME}
        self.page.load(**show)
        # what a choice sets is no input of a person, so that one run follows and not two
        self.l3rs.change(self.choose, [self.l3rs, self.model], [self.model], **ONE_AT_A_TIME).success(**show)
        for component in (self.model, self.horizon, self.task):
            component.input(**show, trigger_mode="always_last")
        self.start.click(self.race, run, [self.message, self.losses, self.ends], **ONE_AT_A_TIME)

    def choose(self, l3rs: str, model: str) -> Updates:
        """Keeps the model if the L3RS fits it, and else sets one that it fits."""
        try:
            fitting = fitting_models(load_network(_text(l3rs)).config)
        except L3RSError:  # which the look that follows says
            fitting = []
        return {self.model: model if model in fitting or not fitting else fitting[0]}

    def show(self, l3rs: str, model: str, horizon: int, task: int) -> Updates:
        """Shows what an L3RS decides over a run."""
        try:
            picture, summary = look(_text(l3rs), model, horizon, task)
        except L3RSError as error:
            return {self.message: _sentence(error), self.summary: None, self.picture: None}
        return {self.message: _sentence(), self.summary: markdown_text(summary), self.picture: picture}

    def race(self, l3rs: str, model: str, horizon: int, task: int) -> Iterator[Updates]:
        """Shows the curve of each optimizer when its run is over."""
        try:
            for curves, ends in race(_text(l3rs), model, horizon, task):
                yield {self.message: _sentence(), self.losses: curves, self.ends: ends}
        except L3RSError as error:
            yield {self.message: _sentence(error), self.losses: NO_CURVE, self.ends: None}


def _text(value: str | None) -> str:
    """What was typed; nothing at all if the field was emptied."""
    return (value or "").strip()


def _sentence(error: L3RSError | None = None) -> gr.Markdown:
    """The message's place: hidden without an error."""
    return gr.Markdown(f"**{markdown_text(error)}**" if error else "", visible=error is not None)


def main() -> None:
    """Serves the page until it is interrupted."""
    torch.set_num_threads(1)  # small models are fastest so
    App().page.launch(theme=THEME, footer_links=[], ssr_mode=False)


if __name__ == "__main__":
    main()
