"""What is said of rows is what they show, in pairs over tasks, and nothing beyond noise is called a win."""

import math
import random
from dataclasses import replace

import pytest

from hf_l3rs.errors import ArtifactError, DataError
from hf_l3rs.evaluation.baselines import is_tuning_free
from hf_l3rs.evaluation.benchmark import best_rates
from hf_l3rs.evaluation.report import (
    comparable,
    compare_paired,
    describe,
    meta_training_cost,
    summarise,
    to_markdown,
    to_results,
)
from hf_l3rs.hub.artifact import RELEASED, RESULTS_NAME
from hf_l3rs.hub.results import Results, read_results, write_results
from recipes.evidence.stored import read_stored, rivals_in
from tests.evaluation.rows import BASELINE_NAMES, ROWS, row


NAMES = {"dataset": "blobs", "split": "test", "setting": "in domain", "command": "python x.py"}
INF = math.inf


@pytest.mark.parametrize(
    "ours, theirs, verdict",
    [
        ([0.9, 1.9, 2.9], [1.0, 2.0, 3.01], "ahead"),  # however far tasks are apart
        ([1.0, 2.0, 3.01], [0.9, 1.9, 2.9], "behind"),
        ([0.9, 2.1, 2.9, 3.0], [1.0, 2.0, 3.0, 3.0], "level"),
        ([0.1], [9.0], "level"),  # of a single task
        ([1.0, 1.0], [1.0, 1.0], "level"),
        ([0.1, INF], [1.0, 1.0], "behind"),
        ([2.0, 2.0], [1.0, INF], "ahead"),
        ([INF, 1.0], [1.0, INF], "level"),
        ([INF, 0.9, 1.9], [INF, 1.0, 2.0], "level"),
    ],
)
def test_ahead_and_behind_are_beyond_the_paired_interval(ours, theirs, verdict):
    assert compare_paired(ours, theirs).verdict == verdict


@pytest.mark.parametrize("count", [4, 16, 40])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(count):
    draws = random.Random(0)
    found = [compare_paired([draws.gauss(0.3, 0.2) for _ in range(count)], [0.0] * count) for _ in range(400)]
    assert 0.92 < sum(each.low <= 0.3 <= each.high for each in found) / 400 < 0.98
    each = compare_paired([1.0, 2.0, 3.0], [2.0, 1.0, 6.0])
    assert (each.difference, each.wins, each.num_tasks) == (-1.0, 2, 3)
    assert each.stderr == pytest.approx((4 / 3) ** 0.5)
    assert each.high - each.difference == pytest.approx(4.303 * each.stderr)


def test_summary_is_against_the_best_baseline_of_each_horizon():
    summary = next(s for s in summarise(ROWS, BASELINE_NAMES) if s.optimizer == "L3RS")
    assert summary.loss == pytest.approx(4 / 3)
    assert summary.loss_stderr == pytest.approx(0.7637626 / 3**0.5)
    assert (summary.paired.wins, summary.num_tasks, summary.paired.verdict) == (3, 3, "level")
    equal = [each for each in summarise(ROWS, BASELINE_NAMES) if each.num_training_steps == 20]
    assert [each.is_reference for each in equal] == [True, False, False]


def test_runs_of_many_passes_are_compared_with_nothing():
    many = [*ROWS, *(row("Data limit, 8 passes", task, 0.1, rate=0.004) for task in range(3))]
    assert summarise(many, BASELINE_NAMES) == summarise(ROWS, BASELINE_NAMES)
    assert rivals_in(many) == list(BASELINE_NAMES) and comparable(many) == ROWS
    assert rivals_in([row("L3RS, untrained", 0, 1.0), row("Prodigy", 0, 1.0)]) == ["Prodigy"]


UNTRAINED = [row("L3RS, untrained", task, loss) for task, loss in enumerate([2.5, 3.5, 4.5])]


def said(rows, cost=None):
    return describe(rows, summarise(rows, BASELINE_NAMES), cost).splitlines()


def test_payback_is_told_where_training_made_it_better():
    """A user who tries eleven rates takes 100 steps more than one run of 10."""
    assert "paid back after 34 tasks" in said([*ROWS, *UNTRAINED], cost=3400)[0]
    rows = [*(each for each in ROWS if each.num_training_steps == 10), *UNTRAINED]
    rows += [row("Linear probe", task, loss) for task, loss in enumerate([0.9, 1.9, 2.9])]
    assert "paid back" not in describe(rows, summarise(rows, ["Linear probe"]), 3400)
    as_good = [replace(each, loss=each.loss - 2.0) for each in UNTRAINED]
    (ten, _) = said([*ROWS, *as_good], cost=3400)
    assert "paid back" not in ten and "Untrained, it is level" in ten
    better = [replace(each, loss=loss) for each, loss in zip(UNTRAINED, [0.3, 1.3, 1.8])]
    assert "Untrained, it is better" in said([*ROWS, *better], cost=3400)[0]


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1, "1000", True, [1]])
def test_a_cost_is_a_number_of_steps(cost):
    assert meta_training_cost({}) is None
    assert meta_training_cost({"inner_steps": 0}) == 0
    assert meta_training_cost({"inner_steps": 1000, "cost_in_plain_steps": 3400.5}) == 3400.5
    with pytest.raises(ArtifactError, match="cost") as error:
        meta_training_cost({"cost_in_plain_steps": cost})
    assert "\n" not in str(error.value)


DIVERGED = [
    *(row("Adam constant", task, loss) for task, loss in enumerate([1.0, 2.0, 3.0])),
    *(row("Adam cosine", task, loss) for task, loss in enumerate([0.1, INF, 0.1])),
    *(row("L3RS", task, loss) for task, loss in enumerate([0.5, INF, INF])),
]


def test_a_diverged_run_counts_as_the_worst_and_is_shown(tmp_path):
    constant, cosine, l3rs = summaries = summarise(DIVERGED, BASELINE_NAMES)
    assert l3rs.reference == "Adam constant"
    assert (l3rs.num_diverged, l3rs.loss, l3rs.loss_stderr) == (2, INF, INF)
    assert (l3rs.paired.wins, l3rs.num_tasks, l3rs.accuracy) == (1, 3, pytest.approx(0.95 / 3))
    assert (cosine.num_diverged, cosine.loss, cosine.paired.wins) == (1, INF, 2)
    table = to_markdown(summaries)
    assert "diverged on 2 of 3" in table and "diverged on 1 of 3" in table
    assert "nan" not in table and "is behind" in describe(DIVERGED, summaries)
    results = to_results(summaries, BASELINE_NAMES, **NAMES)
    write_results(Results("0" * 16, tuple(results)), tmp_path / "results.json")
    (entry,) = read_results(tmp_path / "results.json").entries
    assert entry == results[0] and (entry.loss, entry.loss_stderr, entry.num_diverged) == (INF, None, 2)
    assert "Infinity" not in (tmp_path / "results.json").read_text() and (entry.wins, entry.verdict) == (1, "behind")


def test_a_reference_may_diverge_too():
    rows = [row(each.optimizer, each.task, INF if each.task == 1 else each.loss) for each in DIVERGED]
    (l3rs,) = [summary for summary in summarise(rows, BASELINE_NAMES) if summary.optimizer == "L3RS"]
    assert l3rs.reference == "Adam cosine" and l3rs.paired.wins == 0
    (entry,) = to_results(summarise(rows, BASELINE_NAMES), BASELINE_NAMES, **NAMES)
    assert entry.baseline_loss == INF


def test_entries_have_the_interval_and_say_whether_the_reference_was_tuned():
    names = [*BASELINE_NAMES, "Adam at 1e-3"]
    rows = [*ROWS[:9], *(row("Adam at 1e-3", task, 0.1, rate=1e-3) for task in range(3)), *ROWS[9:]]
    ten, twenty = to_results(summarise(rows, names), names, **NAMES)
    assert (ten.baseline, twenty.baseline) == ("Adam at 1e-3", "Adam constant, tuned")
    assert ten.difference_low < ten.loss - ten.baseline_loss < ten.difference_high and ten.verdict == "level"


def test_a_single_task_has_no_error():
    summaries = summarise([row("Adam constant", 0, 1.0), row("L3RS", 0, 0.5)], BASELINE_NAMES)
    table = to_markdown(summaries)
    assert "±" not in table and "| 0.500 |" in table and "nan" not in table
    (entry,) = to_results(summaries, BASELINE_NAMES, **NAMES)
    assert (entry.loss_stderr, entry.accuracy_stderr, entry.difference_low) == (None, None, None)


def test_rows_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match="L3RS on task 0 for 10 steps twice"):
        summarise([*ROWS, row("L3RS", 0, 0.7)], BASELINE_NAMES)
    with pytest.raises(DataError, match="Muon"):
        summarise(ROWS, ["Muon"])


CELLS = {
    "l3rs-resnet-tiny-fashion": ("in_domain", "other_domain"),
    "l3rs-vit-tiny-fashion": ("in_domain", "other_initialisation", "other_domain"),
}


def stored_summaries(name, cell):
    rows = read_stored(name)[cell]
    return summarise(rows, rivals_in(rows))


@pytest.mark.parametrize("name", CELLS)
def test_cards_say_what_the_stored_rows_say(name):
    entries = read_results(RELEASED / name / RESULTS_NAME).entries
    again = [
        result
        for cell in CELLS[name]
        for result in to_results(stored_summaries(name, cell), rivals_in(read_stored(name)[cell]), **NAMES)
        if result.optimizer in ("L3RS", "L3RS, untrained")
    ]
    for entry, result in zip(entries, again, strict=True):
        found = {key: value for key, value in vars(result).items() if key not in NAMES and value is not None}
        for key, value in found.items():
            told = getattr(entry, key)
            assert told == value if isinstance(value, str) else told == pytest.approx(value, rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("name, cell", [(name, cell) for name, cells in CELLS.items() for cell in cells])
def test_stored_baselines_ran_at_the_rates_that_their_stored_search_found(name, cell):
    rates = best_rates(comparable(read_stored(name)[f"search_{cell}"]))
    rivals = [rival for rival in rivals_in(read_stored(name)[cell]) if not is_tuning_free(rival)]
    summaries = [each for each in stored_summaries(name, cell) if each.optimizer in rivals]
    assert {(each.optimizer, each.num_training_steps): each.learning_rate for each in summaries} == {
        (baseline, steps): rate for baseline, by_steps in rates.items() for steps, rate in by_steps.items()
    }
