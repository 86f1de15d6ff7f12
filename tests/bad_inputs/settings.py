"""Settings files and options of recipes: what cannot be read, is unknown, of a wrong type or out of its range."""

from hf_l3rs.cli.meta_train import run as meta_train
from recipes import benchmark_meta_training, benchmark_step
from tests.bad_inputs.doors import Row, command, meta_evaluate as evaluate, meta_train as train, text_settings, usage


FILES = [
    Row("settings file: absent", command("meta-train", "<own>/absent.yaml"),
        "There is no settings file .*absent.yaml; give one in YAML that is there, or let `hf-l3rs init` write one"),
    Row("settings file: another kind", command("meta-train", "<own>/a.json"),
        "A settings file must end in .yaml or .yml, got '.*a.json'; rename it"),
    Row("settings file: a folder",
        command("meta-train", "<own>/a.yaml", prepare=lambda place: (place / "a.yaml").mkdir()),
        "a.yaml cannot be read.*directory"),
    Row("settings file: not UTF-8", text_settings(b"base_model: \xff\xfe"), "cannot be read as YAML in UTF-8"),
    Row("settings file: a tab", text_settings("base_model:\n\t- a"), "cannot be read as YAML.*tab|cannot be read"),
    Row("settings file: an open bracket", text_settings("datasets: [a"), "cannot be read as YAML"),
    Row("settings file: empty", text_settings(""), "must hold one `name: value` a line, got NoneType"),
    Row("settings file: nested without end", text_settings("[" * 5000), "cannot be read as YAML"),
    Row("settings file: a Python object", text_settings("base_model: !!python/object:os.system {}"), "cannot be read"),
    Row("settings file: a word for a setting's name", text_settings("3: 4"), "Unknown settings in the YAML file: 3"),
    Row("settings file: a date", text_settings("base_model: 2024-01-01\ndatasets: [a]"), "base_model must be text"),
    Row("unknown setting", train(num_pears=3), "num_pears.*num_pairs"),
    Row("unknown setting of an evaluation", evaluate(horizon=[5]), "horizon.*horizons"),
    Row("no base_model", usage(meta_train, "--datasets", "<images>"), "required: --base_model"),
    Row("unknown option", usage(meta_train, "--num_pears", "3"), "num_pears|required"),
    Row("a data set without a name", usage(meta_train, "--base_model", "a", "--datasets", ""), "--datasets: invalid"),
    Row("option without a value", usage(meta_train, "--base_model"), "--base_model.*expected"),
    Row("option of a wrong type", usage(meta_train, "--num_pairs", "many"), "invalid int value: 'many'"),
]  # fmt: skip

# Setting -> bad values. The sentence names the setting and the value.
NAN, INF = float("nan"), float("inf")
BAD_VALUES = {
    "base_model": [None, " ", ["a"]],
    "base_model_revision": [7, ""],
    "more_base_models": ["model", [" "]],
    "trainable": ["", "last", "last:0", "body", None, ["all"]],
    "datasets": [None, [], "<images>", {"path": "<images>"}],
    "num_classes": [0, 1, 2.5, "two", True, None, NAN],
    "batch_size": [0, -3, "32"],
    "batch_sizes": [[0], ["32"], 8],
    "evaluation_size": [0, 512.0],
    "min_steps": [0, 10**12],
    "max_steps": [0, -1, "fifty"],
    "spread_horizons": ["yes", 2],
    "augmentations": ["rotation", ["blur"], None],
    "num_validation_tasks": [-1],
    "initial_l3rs": [[]],
    "directions": ["adam", ["adan"], [], ["adam", "adam"]],
    "hidden_sizes": [32, [0], [10**9], [65536, 65536]],
    "embedding_size": [-1, 10**6],
    "base_step": [0, INF, 1e300],
    "adam_betas": [[0.9], [0.9, 1.0], 0.9],
    "step_reference": ["mean"],
    "layers_by": ["block", ["name"], "role"],  # role does not go with steps that depend on the width
    "batch_norm_momentum": [0.0, 2.0],
    "anneal_long_runs": ["often"],
    "features": [["weather"], ["loss", "loss"]],
    "max_grad_norm": [0, NAN],
    "num_generations": [0, 1.5],
    "num_pairs": [0, 2.5],
    "sigma": [0, NAN],
    "learning_rate": [0, "fast"],
    "final_learning_rate": [2],
    "warmup_generations": [-1],
    "averaging": [1.0],
    "seed": [2**70, -1, "x"],
    "second_order": ["yes"],
    "segment_steps": [-1],
    "lookahead_steps": [-1, 2.5],
    "num_whole_runs": [-1, 9],
    "estimator": ["magic"],
    "validation_interval": [-1],
    "checkpoint_interval": ["often"],
    "keep_checkpoints": [0],
    "num_threads": [0],
    "report_to": ["excel"],
    "output_dir": [None, 5, ""],
}
SAYS = {"layers_by: 'role'": "step_reference .*got 'rms'; set it", "baselines: ['Lion']": "got 'Lion'"}

# What one data set says of itself. These are fields of a mapping beside its path.
BAD_DATA = {
    "path": [None, "", 3],
    "split": ["train"],  # unknown
    "classes": ["ant", [1.5], [True]],
    "max_images": [0, True],
    "max_memory_gb": [-1, NAN, None],
    "evaluation_split": ["", 3],
    "hub_id": [3],
}

EVALUATION_VALUES = {
    "l3rs": [None],
    "baselines": [["Lion"], [], "Adam cosine"],
    "horizons": [[0], 10, [2, 2]],
    "num_tasks": [0],
    "num_search_tasks": ["few"],
    "output_dir": [""],
    "search_dir": [""],
    "evaluate_every": [0],
    "seed": [2**70],
}


def rows_of(values, door, prefix=""):
    for setting, bad in values.items():
        for value in bad:
            name = f"{setting}: {value!r}"
            yield Row(f"{prefix}{name}", door(setting, value), SAYS.get(name, setting))


BENCHMARKS = [
    Row("benchmark_step: no round", usage(benchmark_step.main, "--rounds", "0"), "--rounds must be at least 1, got 0"),
    Row("benchmark_step: unknown model", usage(benchmark_step.main, "--models", "bert"), "invalid choice: 'bert'"),
    Row("benchmark_step: unknown device", usage(benchmark_step.main, "--device", "gpu"), "--device.*gpu"),
    Row("benchmark_meta_training: no step", usage(benchmark_meta_training.main, "--steps", "0"), "--steps must be"),
    Row("benchmark_meta_training: unknown section", usage(benchmark_meta_training.main, "--sections", "gpu"),
        "invalid choice: 'gpu'"),
]  # fmt: skip

ROWS = [
    *FILES,
    *rows_of(BAD_VALUES, lambda setting, value: train(**{setting: value})),
    *rows_of(BAD_DATA, lambda setting, value: train(datasets=[{"path": "<images>", setting: value}]), "a data set's "),
    *(Row(f"a data set: {value}", train(datasets=[value]), "A data set is a path, or a mapping")
      for value in (3, {"name": "a"}, None)),
    *rows_of(EVALUATION_VALUES, lambda setting, value: evaluate(**{setting: value}), "evaluation's "),
    Row("segments: of no length", train(estimator="segments"), "needs segment_steps of at least 1.*got 0; set"),
    *BENCHMARKS,
]  # fmt: skip
