"""An evaluation from its settings to its tables: the paper's figure 3 on any model, data set and optimizer."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hf_l3rs.distributed import on_main_process, threads
from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import BASELINES, check_baseline_name, l3rs_contender, select_baselines
from hf_l3rs.evaluation.benchmark import best_rates, comparison_runs, run_all, search_runs
from hf_l3rs.evaluation.plots import plot_learning_curves
from hf_l3rs.evaluation.report import describe, meta_training_cost, summarise, to_markdown, to_results
from hf_l3rs.evaluation.store import Row, RowStore, Run, measurement_settings
from hf_l3rs.files import write_files
from hf_l3rs.hub.artifact import PICTURE_NAME, RESULTS_NAME, L3RSArtifact
from hf_l3rs.hub.results import UNTRAINED, Results, write_results
from hf_l3rs.optimizer.fit import MINIMUM_FIT, measure_fit, refuse_misfit
from hf_l3rs.optimizer.layers import describe_trainable_layers
from hf_l3rs.optimizer.network import L3RSNetwork
from hf_l3rs.tasks.distribution import TaskDistribution, build_tasks
from hf_l3rs.tasks.model import compare_trainable
from hf_l3rs.tasks.seen_data import check_unseen, seen_data
from hf_l3rs.tasks.task_arguments import ModelArguments, TaskArguments
from hf_l3rs.validation import MAX_SEED, Range, check_fields, check_not_empty


SEARCH_NAME = "search.csv"
ROWS_NAME = "rows.csv"


@dataclass(frozen=True)
class EvaluationArguments:
    """What is measured, and how long. Each field's help describes it."""

    l3rs: str = field(metadata={"help": "Name, folder or Hub id of the L3RS."})
    setting: str = field(default="in domain", metadata={
        "help": "How the tasks relate to meta-training; for the card."})  # fmt: skip
    baselines: list[str] = field(default_factory=lambda: ["Adam constant", "Adam cosine", "Linear probe"], metadata={
        "help": f"Any of {', '.join(BASELINES)}; or the dotted path of one of your own, of a class such as "
        "torch.optim.RAdam or of a hf_l3rs.evaluation.baselines.Baseline. Schedule-free AdamW needs the package "
        "schedulefree."})  # fmt: skip
    horizons: list[int] = field(default_factory=lambda: [10, 20, 50, 100], metadata={
        "help": "Lengths of runs, in steps."})  # fmt: skip
    num_tasks: int = field(default=16, metadata={"help": "Unseen tasks."})
    num_search_tasks: int = field(default=8, metadata={"help": "Validation tasks of the learning-rate search."})
    evaluate_every: int | None = field(default=None, metadata={
        "help": "Steps between points of the curves; at the end of runs only by default."})  # fmt: skip
    seed: int = field(default=1000, metadata={"help": "Of the tasks."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Where rows, tables and pictures go."})
    search_dir: str | None = field(default=None, metadata={
        "help": "Where the learning-rate search is, or goes to; output_dir by default. Evaluations of several L3RS on "
        "the same model and data can share it."})  # fmt: skip
    title: str = field(default="Fine-tuning", metadata={"help": "Above the picture."})

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("horizons", "num_tasks", "num_search_tasks", "evaluate_every"), Range(low=1))
        check_fields(self, {"seed": Range(low=0, high=MAX_SEED), **counts})
        check_not_empty(self, "l3rs", "output_dir", "search_dir")
        for name in ("baselines", "horizons"):
            values = getattr(self, name)
            repeated = [value for value, count in Counter(values).items() if count > 1]
            if repeated or not values:
                got = f"{', '.join(map(str, repeated))} twice" if repeated else "none"
                raise ConfigError(f"EvaluationArguments.{name} must be at least one, each once, got {got}.")
        for name in self.baselines:
            check_baseline_name(name)


class EvaluationJob:
    """
    Measures an L3RS against tuned hand-designed optimizers.

    First every learning rate of every baseline is tried on validation tasks, for every length of run; then all
    optimizers, the untrained L3RS among them, run on the same unseen tasks. After an interruption the same job goes on
    from there, with any number of processes, to the same rows.

    Args:
        model_args ([`ModelArguments`]): The model that is fine-tuned.
        task_args ([`TaskArguments`]): The tasks that it is fine-tuned on.
        args ([`EvaluationArguments`]): What is measured, and where results go.
        accelerator (`Accelerator`): Shares the work out over processes.

    Raises:
        DataError: If meta-training saw images of the tasks.
        BindingError: If the L3RS is of another model, or of other layers than those that are fine-tuned.
        CheckpointError: If a folder holds rows that were measured with other settings.

    Example:

    ```python
    job = EvaluationJob(
        ModelArguments(base_model="recipes/base_models/resnet-tiny-fashion"),
        TaskArguments(datasets=["user/images"], num_classes=5),
        EvaluationArguments(l3rs="l3rs-resnet-tiny-fashion", output_dir="outputs/evaluation"),
        Accelerator(),
    )
    print(job.run())
    ```
    """

    def __init__(
        self, model_args: ModelArguments, task_args: TaskArguments, args: EvaluationArguments, accelerator: Accelerator
    ) -> None:
        self.task_args, self.args, self.accelerator = task_args, args, accelerator
        self.baselines = select_baselines(args.baselines)
        self.network = L3RSArtifact.from_pretrained(args.l3rs).network
        self.meta_training_cost = meta_training_cost(self.network.config.meta_training)
        if model_args.more_base_models:
            raise ConfigError("An evaluation is of one base model; leave out more_base_models, and evaluate each.")
        check_unseen(seen_data(self.network.config.meta_training), task_args, args.seed)
        compare_trainable(self.network.config.meta_training, model_args.trainable)
        self.output_dir = Path(args.output_dir)
        self.model, self.tasks, self.search_tasks = build_tasks(model_args, task_args, args.seed)
        refuse_misfit(measure_fit(describe_trainable_layers(self.model), self.network.config), MINIMUM_FIT)
        self.model.to(accelerator.device)
        untrained = L3RSNetwork(self.network.config)
        self.contenders = [l3rs_contender(self.network), l3rs_contender(untrained, UNTRAINED)]
        search_dir = Path(args.search_dir or args.output_dir)

        search, comparison = (
            measurement_settings(self.model, tasks, model_args, task_args, args.seed, evaluate_every)
            for tasks, evaluate_every in ((self.search_tasks, None), (self.tasks, args.evaluate_every))
        )
        remedy = f"name another {'search_dir' if args.search_dir else 'output_dir'}"
        self.search_store = RowStore(search_dir / SEARCH_NAME, search, remedy)
        remedy = f"name another output_dir (search_dir {search_dir} makes it use the search that is there)"
        self.store = RowStore(self.output_dir / ROWS_NAME, comparison, remedy)

    def run(self, command: str | None = None) -> str:
        """Searches, compares and reports. Returns the summary in Markdown. The card names `command` to do it again."""
        identities = {each.name: each.identity for each in self.contenders}
        identities |= {each.name: each.identity for each in self.baselines}
        on_main_process(self.accelerator, lambda: self.store.check(identities))  # before a search that takes long
        with threads(1):  # many small runs are fastest so, and rounding depends on it
            rows = self.compare(self.search())
        return self.report(rows, command)

    def search(self) -> list[Row]:
        """Returns the rows of every learning rate of every baseline on validation tasks."""
        runs = search_runs(self.baselines, self.args.num_search_tasks, self.args.horizons)
        return self._run_all(runs, self.search_tasks, self.search_store, "searching learning rates")

    def compare(self, searched: Sequence[Row]) -> list[Row]:
        """Returns the rows of all optimizers on the same unseen tasks, at the best rates of those that have any."""
        args = self.args
        runs = comparison_runs(self.baselines, best_rates(searched), self.contenders, args.num_tasks, args.horizons)
        return self._run_all(runs, self.tasks, self.store, "comparing", args.evaluate_every)

    def _run_all(self, runs: Sequence[Run], tasks: TaskDistribution, *rest: Any) -> list[Row]:
        return run_all(self.accelerator, self.model, tasks, self.args.seed, runs, *rest)

    def report(self, rows: Sequence[Row], command: str | None = None) -> str:
        """Writes `summary.md`, `results.json` (the card's) and `curves.png`; returns the summary in Markdown."""
        args, datasets = self.args, self.task_args.datasets
        command = command or shlex.join(["python", *sys.argv])
        names = [baseline.name for baseline in self.baselines]
        summaries = summarise(rows, names)
        table = f"{to_markdown(summaries)}\n\n{describe(rows, summaries, self.meta_training_cost)}"
        entries = to_results(
            summaries,
            names,
            dataset=", ".join(dict.fromkeys(dataset.hub_id or dataset.path for dataset in datasets)),
            hub_id=datasets[0].known_as if len(datasets) == 1 else None,
            split=", ".join(dict.fromkeys(dataset.evaluation_split or dataset.batches_split for dataset in datasets)),
            setting=args.setting,
            command=command,
        )

        def write() -> None:
            write_files(self.output_dir, {"summary.md": f"# {args.title}\n\n{table}\n\n`{command}`\n".encode()})
            write_results(Results(self.network.fingerprint(), tuple(entries)), self.output_dir / RESULTS_NAME)
            plot_learning_curves(rows, self.output_dir / PICTURE_NAME, args.title)

        on_main_process(self.accelerator, write)
        return table
