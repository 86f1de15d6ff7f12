"""What the app says."""

INTRODUCTION = """\
# A look inside a learned optimizer

**L3RS fine-tunes a pretrained vision model with nothing to tune.** At every step, a small meta-trained network decides
for every layer *l* of the model:

- **λ, how large the update is.** A learning rate of the layer's own, which rises and falls over the run.
- **μ, how directions are mixed.** Which share of the update comes from Adam's direction, which from plain SGD's,
  and so on; the shares of a layer are 1 together.

> Δθ(l) = −λ(l) · Σₚ μ(l)ₚ · dₚ(l) / ‖dₚ(l)‖

Everything below runs live, on images of Fashion-MNIST that the listed L3RSs never saw.
[The paper](https://arxiv.org/abs/2408.09310) has the method; this implementation is independent of its authors.
"""

LOOK = """\
## 1. What it decides, layer by layer

Each line is a layer, each column a kind of layers: yellow lines are near the input, dark ones near the head.
**"step / base step" is λ**, on a logarithmic scale; **"share of ..." is μ**, a row for each direction. Drag the
horizon above, and see how the plan for the run changes with its length.
"""

RACE = """\
## 2. Race it against Adam

All start from the same pretrained model with the same new head, and get the same batches in the same order. L3RS has
no learning rate; Adam's may be the one that a search on other images found best for runs of about this length.
"""

CHOICES = "An L3RS that is listed, a folder, or a Hub id such as user/name and Enter."
HORIZON = "Steps of the fine-tuning run, which L3RS is told at the start."
TASK = "Each has another new head, other batches and other test images."
RATE = "Of Adam constant and cosine; searched: what was best of eleven on validation tasks."
