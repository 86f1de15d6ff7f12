"""Evaluates a tiny L3RS; the tests of the job launch it in one process or several, which may be killed.

python -m tests.evaluation.evaluate_tiny INPUTS OUTPUT_DIR [FILE DIE_AFTER]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import ViTImageProcessorPil

from hf_l3rs.distributed import make_accelerator
from hf_l3rs.evaluation.job import EvaluationArguments, EvaluationJob
from hf_l3rs.evaluation.store import RowStore, to_csv
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.tasks.task_arguments import DatasetArguments, ModelArguments, TaskArguments
from tests.tiny import tiny_resnet, trained_network


CLASSES = ("ant", "bee", "cow", "dog")


def make_inputs(folder: Path) -> Path:
    """Writes images, a base model and an L3RS."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / "images/train" / name).mkdir(parents=True)
        for number in range(40):
            image = rng.integers(0, 120, (8, 8, 3)) + 30 * label
            Image.fromarray(image.astype(np.uint8)).save(folder / "images/train" / name / f"{number:02d}.png")
    model = tiny_resnet()
    model.save_pretrained(folder / "base")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder / "base")
    save_network(trained_network(model), folder / "l3rs")
    return folder


def make_job(inputs: Path, output_dir: Path, *, model=None, dataset=None, tasks=None, **changes) -> EvaluationJob:
    data = DatasetArguments(**{"path": str(inputs / "images"), **(dataset or {})})
    sizes = {"num_classes": 3, "batch_size": 4, "evaluation_size": 12, **(tasks or {})}
    settings = {
        "l3rs": str(inputs / "l3rs"),
        "baselines": ["SGD constant", "Adam cosine"],
        "horizons": [2, 3],
        "num_tasks": 2,
        "num_search_tasks": 1,
        "evaluate_every": 1,
        "output_dir": str(output_dir),
        **changes,
    }
    return EvaluationJob(
        ModelArguments(**{"base_model": str(inputs / "base"), **(model or {})}),
        TaskArguments(datasets=[data], **sizes),
        EvaluationArguments(**settings),
        make_accelerator(),
    )


def die_after(name: str, count: int) -> None:
    """The last process is killed after `count` runs of one file of rows, in the middle of the rows of the next."""
    append, calls = RowStore.append, iter(range(count))

    def dying(store, rows):
        is_last = int(os.environ.get("RANK", 0)) + 1 == int(os.environ.get("WORLD_SIZE", 1))
        if not is_last or store.file.name != name or next(calls, None) is not None:
            return append(store, rows)
        text = to_csv(rows, header=False)
        with open(store.parts / store._part, "a") as file:
            file.write(text[:-4])  # what is left of the number would be a number
        os.kill(os.getpid(), signal.SIGKILL)

    RowStore.append = dying


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_after(sys.argv[3], int(sys.argv[4]))
    make_job(Path(sys.argv[1]), Path(sys.argv[2])).run("measure it")
