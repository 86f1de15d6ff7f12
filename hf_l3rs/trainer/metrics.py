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
    """Computes a classifier's accuracy, for `Trainer(compute_metrics=...)`; logits may be first of several outputs."""
    logits, labels = eval_pred[0], eval_pred[1]
    metric = Accuracy()
    batches = zip(logits, labels) if isinstance(logits, list) else [(logits, labels)]  # eval_do_concat_batches
    for outputs, references in batches:
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        metric.add_batch(predictions=np.argmax(outputs, axis=-1), references=references)
    return metric.compute() or {}
