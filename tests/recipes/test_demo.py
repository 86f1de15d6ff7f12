import pytest

from hf_l3rs.evaluation.store import read_rows
from recipes import demo


def finals(path):
    return {(row.optimizer, row.task, row.num_training_steps): row.loss for row in read_rows(path) if row.is_final}


def test_the_demo_at_small_size(tmp_path, capsys):
    table = demo.main(["--num_tasks=1", "--horizons=10", "--num_workers=1", f"--output_dir={tmp_path}"])
    assert "| 10 | L3RS | none |" in table
    assert "(best baseline)" in table and "steps to 93 % accuracy" in table
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "rows.csv"}
    assert table in capsys.readouterr().out
    # what the stock Trainer gives is what the evaluation measured, for L3RS and for both Adams
    measured = finals("recipes/results/l3rs-resnet-tiny-fashion/in_domain/rows.csv")
    for key, loss in finals(tmp_path / "rows.csv").items():
        assert loss == pytest.approx(measured[key], rel=0.01)
