"""`hf-l3rs meta-train`: meta-trains an L3RS for a pretrained image-classification model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from os.path import isdir
from pathlib import Path

from hf_l3rs.cli.shell import Answer
from hf_l3rs.errors import CheckpointError, ConfigError, NothingToKeepError
from hf_l3rs.hub.artifact import L3RS_NAME, L3RSArtifact
from hf_l3rs.meta.checkpoint import RunFolder
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.meta.meta_arguments import L3RSArguments, MetaTrainingArguments
from hf_l3rs.meta.meta_build import build_network, run_settings, summary_of_choice
from hf_l3rs.meta.meta_trainer import MetaTrainer, make_accelerator
from hf_l3rs.meta.segments import SegmentConfig
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.distribution import build_tasks
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


logger = logging.getLogger(__name__)

ARGUMENTS = (
    ModelArguments,
    L3RSArguments,
    TaskArguments,
    ESConfig,
    SegmentConfig,
    MetaTrainingArguments,
)

DESCRIPTION = """
Meta-trains an L3RS for a pretrained image-classification model. The first argument is a settings file in YAML, as
`hf-l3rs init` writes it; options of the same names override it. In several processes:
`accelerate launch --module hf_l3rs.cli.main meta-train my.yaml`, or `torchrun --nproc_per_node 2 -m` alike.
OUTPUT_DIR/l3rs is the finished artefact; `hf-l3rs push OUTPUT_DIR user/name` publishes it.
"""


def run(argv: Sequence[str]) -> Answer:
    """Runs the command with what follows its name; the log has told everything by its end."""
    settings = parse_arguments(ARGUMENTS, argv, description=DESCRIPTION, prog="hf-l3rs meta-train")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    folder = train(*settings)
    return Answer("", {"l3rs": None if folder is None else str(folder)})


def train(
    model_args: ModelArguments,
    l3rs_args: L3RSArguments,
    task_args: TaskArguments,
    es: ESConfig,
    segments: SegmentConfig,
    args: MetaTrainingArguments,
) -> Path | None:
    """
    Meta-trains as settings say, of the types of `ARGUMENTS`.

    Returns:
        `Path` or `None`: The folder of the finished artefact, or `None` if training was interrupted.

    Raises:
        L3RSError: Of whatever kind, if settings, model, data or the output folder do not allow the run.
    """
    runs = _runs_of_seeds(es, args, task_args.num_validation_tasks)
    accelerator = make_accelerator(args.report_to, args.output_dir)
    folders = {own.output_dir: own.resume_from_checkpoint for _, own in runs}
    for path, resume in {args.output_dir: None, **folders}.items():  # that of a single seed's run is not written over
        RunFolder(path, args.keep_checkpoints, accelerator).check_free(resume)
    _, tasks, validation = build_tasks(model_args, task_args, es.seed)
    validation_tasks = [validation.draw(es.seed, 0, index) for index in range(task_args.num_validation_tasks)]
    trainers: list[MetaTrainer] = []
    usable: list[MetaTrainer] = []
    for own_es, own in runs:
        trainer = MetaTrainer(
            build_network(tasks.models, l3rs_args, model_args, task_args, own_es.seed),
            tasks,
            own_es,
            own,
            gradient={"gradient": segments.of_whole_runs(), "segments": segments}.get(args.estimator),
            validation_tasks=validation_tasks,
            accelerator=make_accelerator(own.report_to, own.output_dir),  # trackers write where it says
            settings=run_settings(l3rs_args, model_args, task_args, es.seed, tasks.models),
        )
        trainers.append(trainer)
        is_last = len(trainers) == len(runs)
        try:
            trainer.train()
            usable.append(trainer)
        except NothingToKeepError as error:
            if is_last and not usable:
                raise
            logger.warning("The choice is without seed %d: %s", own_es.seed, error)
        if trainer.was_interrupted or (trainer.was_asked_to_stop and not is_last):
            logger.info("Interrupted; continue with --resume_from_checkpoint last.")
            return None
    best = min(usable, key=lambda each: each.progress.best_loss or 0.0)  # several were all validated
    folder = Path(args.output_dir) / L3RS_NAME
    if accelerator.is_main_process:
        if len(runs) > 1:
            losses = {f"seed {each.es.seed}": each.progress.best_loss for each in usable}
            logger.info("Seed %d is kept, the best by validation losses: %s.", best.es.seed, losses)
        summary = summary_of_choice([each.summary() for each in trainers], trainers.index(best))
        best.network.config = best.network.config.replace(meta_training=summary)
        L3RSArtifact(best.network).save_pretrained(folder)
        logger.info("Saved the L3RS in %s.", folder)
    accelerator.end_training()
    return folder


def _runs_of_seeds(
    es: ESConfig, args: MetaTrainingArguments, num_validation_tasks: int
) -> list[tuple[ESConfig, MetaTrainingArguments]]:
    """Returns the settings of each seed's run; a single one has the output folder to itself."""
    if args.num_seeds == 1:
        # isdir is false, too, for what no file system has
        of_seeds = sorted(Path(args.output_dir).glob("seed-*/checkpoint-*")) if isdir(args.output_dir) else []
        if of_seeds:
            raise CheckpointError(
                f"{args.output_dir} holds runs of several seeds, {of_seeds[0].parent.name} among them; give num_seeds "
                "as it was, or name another output_dir."
            )
        return [(es, args)]
    if not (num_validation_tasks and args.validation_interval):
        raise ConfigError(
            "Of several seeds the best on validation tasks is kept, but num_validation_tasks is "
            f"{num_validation_tasks} and validation_interval {args.validation_interval}; raise what is 0, or set "
            "num_seeds to 1."
        )
    return [
        (replace(es, seed=seed), replace(args, num_seeds=1, output_dir=str(Path(args.output_dir) / f"seed-{seed}")))
        for seed in range(es.seed, es.seed + args.num_seeds)
    ]
