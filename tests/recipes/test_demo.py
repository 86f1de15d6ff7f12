import pytest

from hf_l3rs.evaluation.store import Row, read_rows
from recipes import demo
from recipes.evidence.stored import read_stored


def finals(rows):
    return {(row.optimizer, row.task, row.num_training_steps): row.loss for row in rows if row.is_final}


def test_the_demo_at_small_size(tmp_path, capsys):
    table = demo.main(["--num_tasks=1", "--horizons=10", "--num_workers=1", f"--output_dir={tmp_path}"])
    assert "| 10 | L3RS | none |" in table and table in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "rows.csv"}
    # what the stock Trainer gives is what the evaluation measured, for L3RS and for both Adams
    measured = finals(read_stored("l3rs-resnet-tiny-fashion")["in_domain"])
    for key, loss in finals(read_rows(tmp_path / "rows.csv")).items():
        assert loss == pytest.approx(measured[key], rel=0.01)


def test_an_accuracy_that_is_not_reached_is_said_in_words(tmp_path):
    accuracies = dict(zip((*demo.ADAMS, "L3RS"), (0.5, 0.9, 0.95)))
    rows = [Row(name, None, 0, 10, 10, 0.5, accuracy) for name, accuracy in accuracies.items()]
    table = demo.report(rows, demo.DemoArguments(output_dir=str(tmp_path), horizons=[10]))
    assert "Adam constant: 93 % accuracy is not reached in these runs" in table
    assert "L3RS: 93 % accuracy after 10 steps" in table
