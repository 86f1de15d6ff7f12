"""`hf-l3rs evaluate` and `push` of its folder."""

import yaml

from hf_l3rs.hub.artifact import load_network
from hf_l3rs.hub.results import read_results


def test_an_evaluation_ends_in_a_release(run, hub, inputs, tmp_path):
    settings = {
        "base_model": str(inputs / "base"),
        "l3rs": str(inputs / "l3rs"),
        "datasets": [str(inputs / "images")],
        "num_classes": 3,
        "batch_size": 4,
        "evaluation_size": 12,
        "baselines": ["Adam at 1e-3"],
        "horizons": [2],
        "num_tasks": 2,
        "title": "Tiny",
        "output_dir": str(tmp_path / "out"),
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(settings))
    status, out, _ = run("evaluate", tmp_path / "evaluate.yaml", "--evaluate_every", "1")
    assert status == 0 and "| 2 | L3RS |" in out and str(tmp_path / "out") in out
    entry, _ = read_results(tmp_path / "out/l3rs/results.json").entries
    assert entry.command == f"hf-l3rs evaluate {tmp_path}/evaluate.yaml --evaluate_every 1"
    assert load_network(tmp_path / "out/l3rs").fingerprint() == load_network(inputs / "l3rs").fingerprint()
    assert run("push", tmp_path / "out", "me/name")[0] == 0
    repository = hub.repositories["me/name"]
    assert b": images |" in repository.trees[repository.branches["main"]]["README.md"]
