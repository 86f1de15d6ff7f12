"""Accuracy as a metric of the library evaluate, without network: `evaluate.load` runs code from the Hub."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np


class Accuracy(evaluate.Metric):
    """The share of predictions that equal their reference, as `evaluate.load("accuracy")` computes it."""

    def __init__(self, *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        # in memory: no files and no locks in a cache that parallel runs share
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        classes = datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="Equal predictions.", citation="", inputs_description="Class indices.", features=classes
        )

    def _compute(self, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


def compute_accuracy(eval_pred: Any) -> dict[str, float]:
    """
    Computes the accuracy of a classifier, for `Trainer(compute_metrics=compute_accuracy)`.

    Args:
        eval_pred (`EvalPrediction`):
            Logits of shape `(num_examples, num_classes)`, alone or first of several outputs, and labels of shape
            `(num_examples,)`; with `eval_do_concat_batches=False` lists of those.
    """
    logits, labels = eval_pred[0], eval_pred[1]
    is_list = isinstance(logits, list)
    metric = Accuracy()
    for outputs, references in zip(logits, labels) if is_list else [(logits, labels)]:
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        metric.add_batch(predictions=np.argmax(outputs, axis=-1), references=references)
    return metric.compute() or {}
