"""From an L3RS, or a run that made or measured one, to its repository."""

import pytest

from hf_l3rs.hub.artifact import save_network
from hf_l3rs.hub.results import read_results, write_results
from tests.hub.examples import make_network, make_results


@pytest.fixture
def saved(tmp_path):
    save_network(make_network(), tmp_path / "run/l3rs")
    return tmp_path / "run/l3rs"


def test_a_commit_with_its_message_and_info_of_it(run, hub, saved):
    status, out, err = run("push", saved, "me/name", "--private", "--message", "By hand", "--license", "mit")
    repository = hub.repositories["me/name"]
    commit = repository.branches["main"]
    assert (status, out, err) == (0, f"{hub.url}/me/name/commit/{commit}\n", "")
    assert repository.is_private and repository.messages == ["By hand"]
    assert b"license: mit" in repository.trees[commit]["README.md"]
    status, out, _ = run("info", "me/name")
    assert status == 0 and commit in out


def test_a_branch(run, hub, saved):
    url = run("push", saved, "me/name", "--revision", "trial")[1].strip()
    repository = hub.repositories["me/name"]
    assert repository.trees[repository.branches["main"]] == {}
    assert url.endswith(repository.branches["trial"])
    assert "config.json" in repository.trees[repository.branches["trial"]]


def test_an_output_folder_goes_with_all_that_was_measured(run, hub, saved, tmp_path):
    results = make_results(make_network())
    write_results(results, tmp_path / "run/evaluation/results.json")
    status, out, err = run("push", tmp_path / "run", "me/name")
    assert (status, err) == (0, "")
    repository = hub.repositories["me/name"]
    tree = repository.trees[repository.branches["main"]]
    assert set(tree) >= {"config.json", "model.safetensors", "results.json", "README.md"}
    assert b"| data |" in tree["README.md"] and read_results(saved / "results.json") == results


def test_results_of_others_are_refused_where_they_are_named(run, hub, saved, tmp_path):
    write_results(make_results(make_network(1)), tmp_path / "run/results.json")
    assert run("push", tmp_path / "run", "me/name")[0] == 0 and not (saved / "results.json").exists()
    status, out, err = run("push", tmp_path / "run", "me/other", "--results", tmp_path / "run")
    assert (status, out, err.count("\n")) == (1, "", 1) and "meta-weights" in err
    assert "me/other" not in hub.repositories


def test_a_hub_that_does_not_answer_is_no_matter_of_the_cache(run, hub, saved, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    status, out, err = run("push", saved, "me/name")
    assert (status, out, err.count("\n")) == (1, "", 1) and "connection" in err and "cache" not in err


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
def test_files_that_are_not_what_they_should_be(run, hub, saved, name, content):
    (saved / name).write_bytes(content)
    status, out, err = run("push", saved, "me/name")
    assert (status, out, err.count("\n")) == (1, "", 1) and name in err and not hub.repositories
