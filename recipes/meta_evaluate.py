"""
Measures an L3RS against tuned hand-designed optimizers: the paper's figure 3 on any model, data set and optimizer.
`hf-l3rs evaluate` does the same.

    python recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 recipes/meta_evaluate.py recipes/configs/evaluate_resnet_tiny_fashion.yaml

First every learning rate of every baseline is tried on validation tasks, for every length of run; then all optimizers
run on the same unseen tasks. So does the data limit, the loss where a run's own batches may be revisited many times,
for runs of up to data_limit_max_steps; its search takes most of the time, and 0 leaves it out. OUTPUT_DIR gets
search.csv and rows.csv (raw), manifest.json (what they were measured with), summary.md, curves.png, results.json (for
the model card) and l3rs, the measured L3RS with a card that shows them.

Rows are on disk as soon as their run is finished. After an interruption the same command goes on from there, with any
number of processes. A search is used again for another L3RS on the same model and data: name its folder as search_dir.
"""

from __future__ import annotations

import sys

from hf_l3rs.cli.evaluate import evaluate
from hf_l3rs.cli.shell import run_script


def main(argv: list[str] | None = None) -> str:
    """Returns the summary as Markdown."""
    evaluated = evaluate(argv, command="python recipes/meta_evaluate.py", description=__doc__)
    if evaluated.is_main_process:
        sys.stdout.write(f"{evaluated.describe()}\n")
    return evaluated.table


if __name__ == "__main__":
    run_script(main)
