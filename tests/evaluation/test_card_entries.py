import math

import pytest

from hf_l3rs.evaluation.card_entries import to_results
from hf_l3rs.evaluation.report import summarise
from hf_l3rs.hub.results import Results, read_results, write_results
from tests.evaluation.rows import BASELINE_NAMES, LIMIT, ROWS, WITH_LIMIT, row


NAMES = {"dataset": "blobs", "split": "test", "setting": "in domain", "command": "python x.py"}


def test_every_optimizer_that_is_no_baseline_has_an_entry():
    results = to_results(summarise(ROWS, BASELINE_NAMES), BASELINE_NAMES, **NAMES)
    assert [(entry.optimizer, entry.num_training_steps) for entry in results] == [("L3RS", 10), ("L3RS", 20)]
    assert results[0].baseline == "Adam constant, tuned" and results[0].baseline_loss == pytest.approx(2.0)
    assert results[0].data_limit_loss is None is results[0].gap_closed


def test_the_data_limit_is_in_the_entries_and_has_none():
    summaries = summarise(WITH_LIMIT, BASELINE_NAMES)
    first, second = to_results(summaries, BASELINE_NAMES, **NAMES)
    assert (first.optimizer, first.data_limit_loss, second.data_limit_loss) == ("L3RS", 1.0, None)
    assert first.gap_closed == pytest.approx(2 / 3) and first.wins == 3
    assert first.step_ratio == to_results(summarise(ROWS, BASELINE_NAMES), BASELINE_NAMES, **NAMES)[0].step_ratio


def test_a_data_limit_that_diverged_survives_the_file(tmp_path):
    rows = [*ROWS, *(row(LIMIT, task, math.inf) for task in range(3))]
    entries = to_results(summarise(rows, BASELINE_NAMES), BASELINE_NAMES, **NAMES)
    write_results(Results("0" * 16, tuple(entries)), tmp_path / "results.json")
    assert read_results(tmp_path / "results.json").entries == tuple(entries)
    assert (entries[0].data_limit_loss, entries[0].gap_closed) == (math.inf, None)
