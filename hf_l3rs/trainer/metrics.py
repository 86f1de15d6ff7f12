"""Metrics as of the library evaluate that need no network: `evaluate.load` downloads and runs code from the Hub."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np


class Accuracy(evaluate.Metric):
    """
    The share of predictions that equal their reference, as `evaluate.load("accuracy")` computes it.

    Example:

    ```python
    metric = Accuracy()
    metric.add_batch(predictions=[0, 1], references=[0, 2])
    metric.compute()  # {"accuracy": 0.5}
    ```
    """

    def __init__(self, *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        # in memory: no files and no locks in a cache that parallel runs share
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of predictions that equal their reference.",
            citation="",
            inputs_description="predictions and references: one class index for each example.",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


def compute_accuracy(eval_pred: Any) -> dict[str, float]:
    """
    Computes the accuracy of a classifier, for `Trainer(compute_metrics=compute_accuracy)`.

    Args:
        eval_pred (`EvalPrediction`): Logits of shape `(num_examples, num_classes)` and labels of `(num_examples,)`.

    Returns:
        `dict[str, float]`: `accuracy`.
    """
    logits, labels = eval_pred
    logits = logits[0] if isinstance(logits, tuple) else logits
    return Accuracy().compute(predictions=np.argmax(logits, axis=-1), references=labels) or {}
