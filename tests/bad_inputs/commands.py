"""The command `hf-l3rs`: folders, ids, revisions and destinations."""

from hf_l3rs.cli import main as cli
from tests.bad_inputs.doors import Row, command, file, usage
from tests.hub.examples import change_config


HOSTILE = "\x1b[31mred\x1b[0m\nline"


def damaged(change):
    """Prepares `<own>/l3rs` as a copy of the L3RS that `change` was done to."""
    return lambda place: change(place.copy("l3rs"))


INIT = ("init", "--model", "<model>", "--data", "<images>", "--no_estimate", "--output", "<own>/my.yaml")
COMPARE = ("compare", "<fitting>", "--model", "<model>", "--data", "<images>", "--batch_size", "2", "--output_dir",
           "<own>/out")  # fmt: skip

MAKING = [
    Row("init: no model", command("init", "--data", "<images>"), "init needs --model; give it, or run init at a"),
    Row("init: no data", command("init", "--model", "<model>"), "init needs --data; give it"),
    Row("init: an L3RS for the model", command(*INIT, "--model", "<l3rs>"), "is an L3RS, not a model to"),
    Row("init: no such split", command(*INIT, "--split", "trian"), "has no split 'trian'; it has train"),
    Row("init: settings that are no YAML", command(*INIT, "--output", "<own>/my.json"), "must end in .yaml, got"),
    Row("init: settings that are there", command(*INIT, prepare=file("my.yaml", "a: 1")),
        "my.yaml exists; choose another --output, or give --overwrite"),
    Row("init: below a file", command(*INIT, "--output", "<own>/file/my.yaml", prepare=file("file", "")),
        "file.* cannot be written"),
    Row("init: no time", command(*INIT, "--minutes", "0"), "--minutes must be more than 0, got 0"),
    Row("init: steps the wrong way round", command(*INIT, "--steps", "30", "10"), "max_steps must be at least min"),
    Row("init: one number of steps", usage(cli.main, "init", "--steps", "10"), "expected 2 arguments"),
    Row("hf-l3rs meta-train: nothing", usage(cli.main, "meta-train"), "required: --base_model.*--datasets"),
    Row("hf-l3rs meta-train: an unknown option", usage(cli.main, "meta-train", "--base_model", "a", "--datasets",
        "b", "--num_generation_s", "3"), "--num_generation_s"),
    Row("hf-l3rs evaluate: nothing", usage(cli.main, "evaluate"), "required: --base_model.*--l3rs"),
    Row("hf-l3rs evaluate: settings of a meta-training", command("evaluate", "<run>.yaml"), "Unknown settings"),
]  # fmt: skip

MEASURING = [
    Row("compare: no data", usage(cli.main, "compare", "<l3rs>", "--model", "<model>"), "required: --data"),
    Row("compare: of another model", command("compare", "<l3rs>", *COMPARE[2:]), "less than minimum_fit"),
    Row("compare: no step", command(*COMPARE, "--steps", "0"), "horizons must be in .*got 0"),
    Row("compare: a negative search", command(*COMPARE, "--search_seeds", "-1"), "must be at least 0, got -1; 0"),
    Row("push: no such results", command("push", "<l3rs>", "me/name", "--results", "./absent.json"),
        "absent.json cannot be read .No such"),
]  # fmt: skip

LOOKING_AND_SHARING = [
    Row("hf-l3rs: no command", usage(cli.main), "required: COMMAND"),
    Row("hf-l3rs: unknown command", usage(cli.main, "download", "a/b"), "invalid choice: 'download'"),
    Row("hf-l3rs: an abbreviated option", usage(cli.main, "compare", "<l3rs>", "--model", "a", "--data", "b", "--seed",
        "3"), "unrecognized arguments: --seed 3"),
    Row("info: a model alone", command("info", "--model", "<model>"), "are of one learned optimizer; name it"),
    Row("info: a revision, offline", command("info", "user/name", "--revision", "v1"), "at revision 'v1', and if"),
    Row("info: a name with commands to the terminal", command("info", f"./{HOSTILE}"), "neither a local folder nor"),
    Row("info: commands to the terminal in a field", command("info", "<own>/l3rs", prepare=damaged(
        lambda folder: change_config(folder, **{HOSTILE: 1}))), "Unknown fields in the L3RS config"),
    Row("push: no id", usage(cli.main, "push", "<l3rs>"), "required: REPO_ID"),
    Row("push: no such folder", command("push", "./absent", "me/name"), "absent is not a folder that can be read"),
]  # fmt: skip

ROWS = [*MAKING, *MEASURING, *LOOKING_AND_SHARING]
