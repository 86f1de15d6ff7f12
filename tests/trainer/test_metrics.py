import evaluate
import numpy as np
import pytest
from transformers import EvalPrediction

from hf_l3rs.trainer.metrics import Accuracy, compute_accuracy


LOGITS, LABELS = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 0, 0])


def test_accuracy_in_batches_and_combined():
    metric = Accuracy()
    metric.add_batch(predictions=np.array([0, 1]), references=np.array([0, 2]))
    metric.add(prediction=3, reference=3)
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3)}
    assert evaluate.combine([Accuracy()]).compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    "predictions, labels, more",
    [
        (LOGITS, LABELS, {}),
        (LOGITS, LABELS, {"inputs": LOGITS, "losses": LABELS}),  # include_for_metrics
        ((LOGITS, LOGITS), LABELS, {}),  # a model that returns more than logits
        ([LOGITS[:2], LOGITS[2:]], [LABELS[:2], LABELS[2:]], {}),  # eval_do_concat_batches=False
        ([(LOGITS[:2], None), (LOGITS[2:], None)], [LABELS[:2], LABELS[2:]], {"losses": LABELS}),
    ],
)
def test_compute_accuracy_of_what_a_trainer_gives(predictions, labels, more):
    prediction = EvalPrediction(predictions=predictions, label_ids=labels, **more)
    assert compute_accuracy(prediction) == {"accuracy": pytest.approx(2 / 3)}
