"""The command `hf-l3rs`: folders, ids, revisions and destinations."""

from hf_l3rs import cli
from tests.bad_inputs.doors import Row, command, usage
from tests.hub.examples import change_config


HOSTILE = "\x1b[31mred\x1b[0m\nline"


def damaged(change):
    """Prepares `<own>/l3rs` as a copy of the L3RS that `change` was done to."""
    return lambda place: change(place.copy("l3rs"))


ROWS = [
    Row("hf-l3rs: no command", usage(cli.main), "required: COMMAND"),
    Row("hf-l3rs: unknown command", usage(cli.main, "download", "a/b"), "invalid choice: 'download'"),
    Row("hf-l3rs: unknown option", usage(cli.main, "info", "a/b", "--branch", "x"),
        "unrecognized arguments: --branch x"),
    Row("info: nothing", usage(cli.main, "info"), "required: FOLDER_OR_REPO_ID"),
    Row("info: no such folder", command("info", "./absent"), "'./absent' is neither a local folder nor a Hub id"),
    Row("info: a file", command("info", "<l3rs>/config.json"), "config.json is a file, not a folder"),
    Row("info: an empty folder", command("info", "<own>"), "has no config.json; pass the folder"),
    Row("info: an empty name", command("info", ""), "'' is neither a local folder nor a Hub id"),
    Row("info: a model", command("info", "<model>"), "holds a transformers model, not an L3RS"),
    Row("info: no such model", command("info", "<l3rs>", "--model", "./absent"), "no folder './absent'; give"),
    Row("info: an L3RS for the model", command("info", "<l3rs>", "--model", "<l3rs>"), "is an L3RS, not a model to"),
    Row("info: an empty name for the model", command("info", "<l3rs>", "--model", ""), "There is no folder ''; give"),
    Row("info: on the Hub, offline", command("info", "user/name"), "is not in the cache and downloads are off"),
    Row("info: a revision, offline", command("info", "user/name", "--revision", "v1"), "at revision 'v1' is not in"),
    Row("info: a revision with spaces", command("info", "user/name", "--revision", "a b"), "revision must be .*'a b'"),
    Row("info: a name with commands to the terminal", command("info", f"./{HOSTILE}"), "neither a local folder nor"),
    Row("info: truncated weights", command("info", "<own>/l3rs", prepare=damaged(
        lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 20))),
        "truncated or not a safetensors file"),
    Row("info: a newer format", command("info", "<own>/l3rs", prepare=damaged(
        lambda folder: change_config(folder, format_version=99))), "pip install -U hf_l3rs"),
    Row("info: commands to the terminal in a field", command("info", "<own>/l3rs", prepare=damaged(
        lambda folder: change_config(folder, **{HOSTILE: 1}))), "Unknown fields in the L3RS config"),
    Row("push: no id", usage(cli.main, "push", "<l3rs>"), "required: REPO_ID"),
    Row("push: no such folder", command("push", "./absent", "me/name"), "absent does not exist; pass the folder"),
    Row("push: a file", command("push", "<l3rs>/config.json", "me/name"), "is a file, not a folder"),
    Row("push: a model", command("push", "<model>", "me/name"), "holds a transformers model, not an L3RS"),
    Row("push: an id with spaces", command("push", "<l3rs>", "my name"), "my name"),
    Row("push: an id of three parts", command("push", "<l3rs>", "a/b/c"), "a/b/c"),
    Row("push: an empty id", command("push", "<l3rs>", ""), "''"),
    Row("push: offline", command("push", "<l3rs>", "me/name"), "The Hub is off because HF_HUB_OFFLINE is set; unset"),
    Row("push: a revision with spaces", command("push", "<l3rs>", "me/name", "--revision", "a b"), "revision must be"),
    Row("push: a card that is not UTF-8", command("push", "<own>/l3rs", "me/name", prepare=damaged(
        lambda folder: (folder / "README.md").write_bytes(b"\xff"))), "README.md is not text in UTF-8"),
    Row("push: results of something else", command("push", "<own>/l3rs", "me/name", prepare=damaged(
        lambda folder: (folder / "results.json").write_bytes(b"[" * 100_000))), "results.json cannot be read as JSON"),
    Row("pull: no folder", usage(cli.main, "pull", "me/name"), "required: FOLDER"),
    Row("pull: offline", command("pull", "user/name", "<own>/out"), "is not in the cache and downloads are off"),
    Row("pull: no name that the Hub has", command("pull", "./l3rs", "<own>/out"),
        "'./l3rs' is neither a local folder nor"),
    Row("pull: a folder for an id", command("pull", "<l3rs>", "<own>/out"), "is a folder, but only a Hub id"),
    Row("pull: a revision with spaces", command("pull", "user/name", "<own>/out", "--revision", " "), "revision must"),
]  # fmt: skip
