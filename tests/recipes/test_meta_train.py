"""The recipes as their user runs them, on the embedded models and images, small."""

import json

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_l3rs import L3RS
from hf_l3rs.hub.artifact import load_network
from hf_l3rs.hub.card import read_results
from recipes import meta_evaluate, meta_train


SMALL = [
    "--num_generations=2",
    "--num_pairs=1",
    "--min_steps=2",
    "--max_steps=3",
    "--evaluation_size=50",
    "--num_validation_tasks=1",
]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_meta_training_makes_an_artefact_that_steps(name, tmp_path):
    folder = meta_train.main([f"recipes/configs/{name}_tiny_fashion.yaml", *SMALL, f"--output_dir={tmp_path}"])
    network = load_network(folder)
    summary = network.config.meta_training
    assert summary["inner_steps"] >= 2 * 2 * 2 and "validation_loss_Adam cosine" in summary
    assert network.config.base_model == f"recipes/base_models/{name}-tiny-fashion"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["generation"] for line in lines] == [1, 2]
    model = AutoModelForImageClassification.from_pretrained(network.config.base_model)
    optimizer = L3RS.from_pretrained(folder).bind(model, num_training_steps=1)
    model(pixel_values=torch.randn(4, 3, 28, 28), labels=torch.arange(4)).loss.backward()
    optimizer.step()
    assert optimizer.statistics()["step_size"] > 0


def test_evaluation_writes_rows_tables_curves_and_results(tmp_path, capsys):
    arguments = [
        "recipes/configs/evaluate_resnet_tiny_fashion.yaml",
        "--baselines=Adam cosine",
        "--horizons=2",
        "--num_tasks=2",
        "--num_search_tasks=1",
        "--evaluation_size=50",
        "--evaluate_every=1",
        f"--output_dir={tmp_path}",
    ]
    table = meta_evaluate.main(arguments)
    assert "| 2 | L3RS |" in table and "L3RS, untrained" in table and table in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "search.csv",
        "rows.csv",
        "summary.md",
        "curves.png",
        "results.json",
        "manifest.json",
    }
    (entry, untrained) = read_results(tmp_path / "results.json").entries
    assert (entry.optimizer, entry.num_tasks, entry.baseline) == ("L3RS", 2, "Adam cosine, tuned")
    assert "meta_evaluate.py recipes/configs" in entry.command and untrained.optimizer == "L3RS, untrained"
    before = (tmp_path / "search.csv").stat().st_mtime_ns
    meta_evaluate.main(arguments)
    assert (tmp_path / "search.csv").stat().st_mtime_ns == before, "a search that is there is used again"
