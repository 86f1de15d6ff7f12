"""
Meta-trains an L3RS for a pretrained image-classification model.

    accelerate launch recipes/meta_train.py recipes/configs/resnet_tiny_fashion.yaml
    torchrun --nproc_per_node 2 recipes/meta_train.py recipes/configs/resnet_tiny_fashion.yaml    # two CPU processes

Settings come from the YAML file; options of the same names override them. The finished artefact is in
OUTPUT_DIR/l3rs, ready for `L3RS.from_pretrained` and `hf-l3rs push`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hf_l3rs.errors import L3RSError
from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.benchmark import tuned_losses
from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.meta.arguments import L3RSArguments, MetaTrainingArguments
from hf_l3rs.meta.build import build_network, run_settings
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.meta.tracking import make_accelerator
from hf_l3rs.meta.trainer import MetaTrainer
from hf_l3rs.meta.windows import WindowConfig
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.arguments import ModelArguments, TaskArguments
from hf_l3rs.tasks.build import build_tasks


logger = logging.getLogger(__name__)

ARGUMENTS = (
    ModelArguments,
    L3RSArguments,
    TaskArguments,
    ESConfig,
    WindowConfig,
    MetaLoss,
    MetaTrainingArguments,
)


def main(argv: list[str] | None = None) -> Path | None:
    """Returns the folder of the finished artefact, or `None` if training was interrupted."""
    arguments = parse_arguments(ARGUMENTS, argv, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return train(*arguments)


def train(
    model_args: ModelArguments,
    l3rs_args: L3RSArguments,
    task_args: TaskArguments,
    es: ESConfig,
    windows: WindowConfig,
    meta_loss: MetaLoss,
    args: MetaTrainingArguments,
) -> Path | None:
    """As `main`, with settings that are read already, of the types of ARGUMENTS."""
    accelerator = make_accelerator(args.report_to, args.output_dir)
    _, tasks, validation = build_tasks(model_args, task_args, es.seed)
    network = build_network(tasks.models, l3rs_args, model_args, task_args, es.seed)
    reference = [BASELINES["Adam cosine"]]
    trainer = MetaTrainer(
        network,
        tasks,
        es,
        args,
        gradient={"gradient": windows.of_whole_runs(), "windows": windows}.get(args.estimator),
        meta_loss=meta_loss,
        validation_tasks=[validation.draw(es.seed, 0, index) for index in range(task_args.num_validation_tasks)],
        references=lambda: tuned_losses(accelerator, trainer.validation_tasks, reference),
        accelerator=accelerator,
        settings=run_settings(l3rs_args, model_args, task_args, es.seed, tasks.models),
    )
    trainer.train()
    if trainer.was_interrupted:
        logger.info("Interrupted; continue with --resume_from_checkpoint last.")
        return None
    folder = Path(args.output_dir) / "l3rs"
    if accelerator.is_main_process:
        network.config = network.config.replace(meta_training=trainer.summary())
        L3RSArtifact(network).save_pretrained(folder)
        logger.info("Saved the L3RS in %s.", folder)
    accelerator.end_training()
    return folder


if __name__ == "__main__":
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
