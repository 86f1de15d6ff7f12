"""Meta-trains a tiny L3RS and saves it; `tests/meta/test_trainer.py` launches it in one process or several.

python -m tests.meta.meta_train_tiny OUTPUT_DIR GENERATIONS [last] [mixture]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hf_l3rs.hub.artifact import save_network
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments
from hf_l3rs.meta.meta_trainer import MetaTrainer
from hf_l3rs.meta.outer import OuterConfig
from tests.meta.problems import make_mixture, make_model, make_network, make_role_network, make_tasks


def make_trainer(
    output_dir: str,
    generations: int = 6,
    outer: dict | None = None,
    mixture: bool = False,
    **changes,
) -> MetaTrainer:
    args = MetaTrainingArguments(output_dir, **{"validation_interval": 2, "checkpoint_interval": 2, **changes})
    draw_from = make_mixture if mixture else lambda seed=0: make_tasks(make_model(dropout=0.1), seed)
    validation = draw_from(seed=1)
    return MetaTrainer(
        make_role_network() if mixture else make_network(),
        draw_from(),
        OuterConfig(num_generations=generations, **{"num_pairs": 3, **(outer or {})}),
        args,
        validation_tasks=[validation.draw(0, 0, index) for index in range(3)],
    )


def whole_and_resumed(folder: Path, generations: int, stop: int, **options) -> tuple[MetaTrainer, MetaTrainer]:
    """Returns a run, and one of the same settings that was interrupted after some generations."""
    whole, half = (make_trainer(str(folder / name), generations, **options) for name in ("whole", "half"))
    whole.train()
    half._all_agree_to_stop = lambda: half.progress.state.generation == stop
    half.train()
    resumed = make_trainer(str(folder / "half"), generations, resume_from_checkpoint="last", **options)
    resumed.train()
    return whole, resumed


if __name__ == "__main__":
    folder, count, options = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    several = {"mixture": True, "outer": {"estimator": "gradient", "num_tasks": 3}} if "mixture" in options else {}
    trainer = make_trainer(folder, count, resume_from_checkpoint="last" if "last" in options else None, **several)
    network = trainer.train()
    if trainer.accelerator.is_main_process:
        save_network(network, f"{folder}/l3rs")
