"""`hf-l3rs meta-train`: meta-trains an L3RS for a pretrained image-classification model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hf_l3rs.distributed import make_accelerator
from hf_l3rs.hub.artifact import L3RS_NAME, L3RSArtifact
from hf_l3rs.meta.checkpoint import RunFolder
from hf_l3rs.meta.meta_arguments import L3RSArguments, MetaTrainingArguments, build_network, run_settings
from hf_l3rs.meta.meta_trainer import MetaTrainer
from hf_l3rs.meta.outer import OuterConfig
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.distribution import build_tasks
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


logger = logging.getLogger(__name__)

ARGUMENTS = (ModelArguments, L3RSArguments, TaskArguments, OuterConfig, MetaTrainingArguments)

DESCRIPTION = """
Meta-trains an L3RS for a pretrained image-classification model. The first argument is a settings file in YAML, as
`hf-l3rs init` writes it; options of the same names override it. In several processes:
`accelerate launch --module hf_l3rs.cli meta-train my.yaml`, or `torchrun --nproc_per_node 2 -m` alike.
OUTPUT_DIR/l3rs is the finished artefact; `hf-l3rs push OUTPUT_DIR user/name` publishes it.
"""


def run(argv: Sequence[str]) -> str:
    settings = parse_arguments(ARGUMENTS, argv, description=DESCRIPTION, prog="hf-l3rs meta-train")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    train(*settings)
    return ""


def train(
    model_args: ModelArguments,
    l3rs_args: L3RSArguments,
    task_args: TaskArguments,
    outer: OuterConfig,
    args: MetaTrainingArguments,
) -> Path | None:
    """Meta-trains; returns the folder of the finished artefact, or `None` if training was interrupted."""
    accelerator = make_accelerator(args.report_to, args.output_dir)
    RunFolder(args.output_dir, args.keep_checkpoints, accelerator).check_free(args.resume_from_checkpoint)
    _, tasks, validation = build_tasks(model_args, task_args, outer.seed)
    trainer = MetaTrainer(
        build_network(tasks.models, l3rs_args, model_args, task_args, outer.seed),
        tasks,
        outer,
        args,
        validation_tasks=[validation.draw(outer.seed, 0, index) for index in range(task_args.num_validation_tasks)],
        accelerator=accelerator,
        settings=run_settings(l3rs_args, model_args, task_args, outer.seed, tasks.models),
    )
    network = trainer.train()
    if trainer.was_interrupted:
        logger.info("Interrupted; continue with --resume_from_checkpoint last.")
        return None
    folder = Path(args.output_dir) / L3RS_NAME
    if accelerator.is_main_process:
        network.config = network.config.replace(meta_training=trainer.summary())
        L3RSArtifact(network).save_pretrained(folder)
        logger.info("Saved the L3RS in %s.", folder)
    accelerator.end_training()
    return folder
