"""The command `hf-l3rs`: what it prints, and its exit status."""

import io
import json

import pytest
import torch

from hf_l3rs import L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.cli.main import main
from hf_l3rs.hub.artifact import load_network, save_network
from tests.tiny import tiny_resnet, trained_network


@pytest.fixture
def saved(tmp_path):
    layers = describe_layers(torch.nn.Sequential(torch.nn.Linear(4, 3)).named_parameters())
    config = L3RSConfig(layers=layers, base_model="org/tiny", num_training_steps=20, meta_training={"sigma": 0.05})
    save_network(L3RSNetwork(config), tmp_path / "saved")
    return tmp_path / "saved"


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_info_tells_the_fit_to_a_model(capsys, saved, tmp_path):
    tiny_resnet().save_pretrained(tmp_path / "model")
    save_network(trained_network(tiny_resnet()), tmp_path / "own")
    plain = run(capsys, "info", tmp_path / "own")[1].splitlines()
    for folder, says in ((tmp_path / "own", "fits all 20 layers (100 %"), (saved, "fits 0 of 20 layers (0 %")):
        status, out, err = run(capsys, "info", folder, "--model", tmp_path / "model")
        first, *others = out.splitlines()
        assert (status, err) == (0, "")
        assert first.startswith(f"fit to {tmp_path / 'model'}") and says in first
        assert folder is saved or [line.split() for line in others] == [line.split() for line in plain]


def test_info(capsys, saved):
    status, out, err = run(capsys, "info", saved)
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert (status, err) == (0, "")
    network = load_network(saved)
    assert rows["fingerprint"] == network.fingerprint()
    assert rows["meta-parameters"] == f"{network.num_meta_parameters:,}"
    assert rows["layers"] == "2"
    assert rows["directions"] == "adam, sgd"
    assert rows["horizon (steps)"] == "20"
    assert rows["base model"] == "org/tiny"
    assert rows["meta-training: sigma"] == "0.05"
    assert rows["commit"] == "-"


def test_push_and_info(capsys, hub, saved):
    status, out, err = run(capsys, "push", saved, "me/name", "--private", "--message", "By hand")
    repository = hub.repositories["me/name"]
    commit = repository.branches["main"]
    assert (status, out, err) == (0, f"{hub.url}/me/name/commit/{commit}\n", "")
    assert repository.is_private
    assert repository.messages == ["By hand"]

    status, out, _ = run(capsys, "info", "me/name")
    assert status == 0
    assert commit in out


def test_push_to_a_branch(capsys, hub, saved):
    assert run(capsys, "push", saved, "me/name", "--revision", "trial")[0] == 0
    repository = hub.repositories["me/name"]
    assert repository.trees[repository.branches["main"]] == {}
    assert "config.json" in repository.trees[repository.branches["trial"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "./no/such/folder"),
        ("info", "user/name"),
        ("push", "no/such/folder", "user/name"),
    ],
)
def test_errors_are_one_line(capsys, arguments):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("hf-l3rs: ")
    assert err.count("\n") == 1


def test_error_of_a_newer_format(capsys, saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    status, _, err = run(capsys, "info", saved)
    assert status == 1
    assert "pip install -U hf_l3rs" in err


HOSTILE = "\x1b]0;title\x07\x1b[31mred\x1b[0m\r\n\x9b2J\x7f \u202e meta"


def test_info_sends_no_commands_to_the_terminal(capsys, saved):
    config = json.loads((saved / "config.json").read_text())
    texts = {"base_model": HOSTILE, "base_model_revision": HOSTILE, "model_type": HOSTILE, "library_version": HOSTILE}
    summary = {HOSTILE: HOSTILE, "nested": [{HOSTILE: [HOSTILE]}]}
    (saved / "config.json").write_text(json.dumps({**config, **texts, "meta_training": summary}))
    status, out, err = run(capsys, "info", saved)
    assert (status, err) == (0, "")
    assert all(line.isprintable() for line in out.split("\n"))
    assert out.count("\n") == 14
    assert "base model " in out and "red" in out


def test_errors_send_no_commands_to_the_terminal(capsys, saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    for changes in ({HOSTILE: 1}, {"base_model": [HOSTILE]}, {"layers": [{HOSTILE: 1}]}, {"directions": [HOSTILE]}):
        (saved / "config.json").write_text(json.dumps({**config, **changes}))
        status, out, err = run(capsys, "info", saved)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.strip("\n").isprintable()
    status, _, err = run(capsys, "info", str(tmp_path / HOSTILE))
    assert status == 1
    assert err.strip("\n").isprintable()


def test_terminal_that_knows_few_characters(saved, monkeypatch):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "base_model": "µ/学习"}))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["info", str(saved)]) == 0
    stream.flush()
    assert b"\\xb5/\\u5b66\\u4e60" in stream.buffer.getvalue()


@pytest.mark.parametrize(
    "name, content",
    [
        ("README.md", b"\xff"),
        ("README.md", b"---\ntags: 3\n---\n"),
        ("README.md", b"---\na: " + b"[" * 900 + b"\n---\n"),
        ("results.json", b"\xff"),
        ("results.json", b"[" * 100_000),
        ("results.json", b'{"format_version": 1, "fingerprint": "x", "results": []}'),
        ("config.json", b"[" * 100_000),
        ("model.safetensors", b""),
    ],
)
def test_files_that_are_not_what_they_should_be(capsys, hub, saved, name, content):
    (saved / name).write_bytes(content)
    status, out, err = run(capsys, "push", saved, "me/name")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert name in err
    assert not hub.repositories


def test_folder_that_may_not_be_read(capsys, saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(saved))

    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    status, out, err = run(capsys, "info", saved)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "Permission denied" in err


def test_usage_errors(capsys):
    for arguments in ([], ["unknown"], ["push", "folder"]):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2
    assert "usage: hf-l3rs" in capsys.readouterr().err
