"""`hf-l3rs meta-train`: meta-trains an L3RS for a pretrained image-classification model."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from os.path import isdir
from pathlib import Path
from typing import Any

from hf_l3rs.cli.shell import Answer
from hf_l3rs.errors import CheckpointError, ConfigError, NothingToKeepError
from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.benchmark import tuned_losses
from hf_l3rs.hub.artifact import L3RS_NAME
from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.meta.candidates import MetaLoss
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.meta.meta_arguments import L3RSArguments, MetaTrainingArguments
from hf_l3rs.meta.meta_build import build_network, choose_best, run_settings, summary_of_choice
from hf_l3rs.meta.meta_trainer import MetaTrainer, make_accelerator
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.run_folder import RunFolder
from hf_l3rs.meta.windows import WindowConfig
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.settings import parse_arguments
from hf_l3rs.tasks.distribution import build_tasks
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments


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

DESCRIPTION = """
Meta-trains an L3RS for a pretrained image-classification model. The first argument is a settings file in YAML, as
`hf-l3rs init` writes it; options of the same names override it. In several processes:
`accelerate launch --module hf_l3rs.cli.main meta-train my.yaml`, or `torchrun --nproc_per_node 2 -m` alike.
OUTPUT_DIR/l3rs is the finished artefact; `hf-l3rs push OUTPUT_DIR user/name` publishes it.
"""


def meta_train(argv: Sequence[str] | None = None, *, description: str = DESCRIPTION, **parser: str) -> Path | None:
    """
    Meta-trains as a settings file and options say.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; that of the process by default.
        description (`str`, *optional*): What `--help` begins with.
        parser: Further settings of the parser, such as `prog`.

    Returns:
        `Path` or `None`: The folder of the finished artefact, or `None` if training was interrupted.

    Raises:
        L3RSError: Of whatever kind, if settings, model, data or the output folder do not allow the run.
    """
    settings = parse_arguments(ARGUMENTS, argv, description=description, **parser)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return train(*settings)


def train(
    model_args: ModelArguments,
    l3rs_args: L3RSArguments,
    task_args: TaskArguments,
    es: ESConfig,
    windows: WindowConfig,
    meta_loss: MetaLoss,
    args: MetaTrainingArguments,
) -> Path | None:
    """As [`meta_train`], with settings that are read already, of the types of `ARGUMENTS`."""
    runs = _runs_of_seeds(es, args, task_args.num_validation_tasks)
    accelerator = make_accelerator(args.report_to, args.output_dir)
    folders = {own.output_dir: own.resume_from_checkpoint for _, own in runs}
    for path, resume in {args.output_dir: None, **folders}.items():  # that of a single seed's run is not written over
        RunFolder(path, args.keep_checkpoints, Processes(accelerator)).check_free(resume)
    _, tasks, validation = build_tasks(model_args, task_args, es.seed)
    validation_tasks = [validation.draw(es.seed, 0, index) for index in range(task_args.num_validation_tasks)]

    @functools.cache  # the same for every seed
    def references() -> dict[str, float]:
        return tuned_losses(accelerator, validation_tasks, [BASELINES["Adam cosine"]])

    networks: dict[str, L3RSNetwork] = {}
    summaries: dict[str, dict[str, Any]] = {}
    for own_es, own in runs:
        name, is_last = f"seed {own_es.seed}", len(summaries) == len(runs) - 1
        trainer = MetaTrainer(
            build_network(tasks.models, l3rs_args, model_args, task_args, own_es.seed),
            tasks,
            own_es,
            own,
            gradient={"gradient": windows.of_whole_runs(), "windows": windows}.get(args.estimator),
            meta_loss=meta_loss,
            validation_tasks=validation_tasks,
            references=references,
            accelerator=make_accelerator(own.report_to, own.output_dir),  # trackers write where it says
            settings=run_settings(l3rs_args, model_args, task_args, es.seed, tasks.models),
        )
        try:
            networks[name] = trainer.train()
        except NothingToKeepError as error:
            if is_last and not networks:
                raise
            logger.warning("The choice is without %s: %s", name, error)
        if trainer.was_interrupted or (trainer.was_asked_to_stop and not is_last):
            logger.info("Interrupted; continue with --resume_from_checkpoint last.")
            return None
        summaries[name] = trainer.summary()
    best = choose_best(networks, validation_tasks, accelerator) if len(networks) > 1 else next(iter(networks))
    folder = Path(args.output_dir) / L3RS_NAME
    if accelerator.is_main_process:
        network = networks[best]
        network.config = network.config.replace(meta_training=summary_of_choice(summaries, best))
        L3RSArtifact(network).save_pretrained(folder)
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
    if not num_validation_tasks:
        raise ConfigError(
            "Of several seeds the best on validation tasks is kept, but num_validation_tasks is 0; raise it, or set "
            "num_seeds to 1."
        )
    return [
        (replace(es, seed=seed), replace(args, num_seeds=1, output_dir=str(Path(args.output_dir) / f"seed-{seed}")))
        for seed in range(es.seed, es.seed + args.num_seeds)
    ]


def run(argv: Sequence[str]) -> Answer:
    """Runs the command with what follows its name; the log has told everything by its end."""
    folder = meta_train(argv, prog="hf-l3rs meta-train")
    return Answer("", {"l3rs": None if folder is None else str(folder)})
