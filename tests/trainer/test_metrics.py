import numpy as np
import pytest

from hf_l3rs.trainer.metrics import Accuracy, compute_accuracy


def test_accuracy_in_one_go_and_in_batches():
    assert Accuracy().compute(predictions=[0, 1, 2, 3], references=[0, 1, 2, 0]) == {"accuracy": 0.75}
    metric = Accuracy()
    metric.add_batch(predictions=np.array([0, 1]), references=np.array([0, 2]))
    metric.add(prediction=3, reference=3)
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3)}


def test_accuracy_combines():
    evaluate = pytest.importorskip("evaluate")
    combined = evaluate.combine([Accuracy()])
    assert combined.compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


def test_compute_accuracy_of_a_trainer():
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert compute_accuracy((logits, np.array([1, 0, 0]))) == {"accuracy": pytest.approx(2 / 3)}
    assert compute_accuracy(((logits, logits), np.array([1, 0, 1]))) == {"accuracy": 1.0}
