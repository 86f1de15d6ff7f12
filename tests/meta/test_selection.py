"""The best average is kept, references are measured once, and patience depends on the progress alone."""

import math

import pytest
import torch
from accelerate import Accelerator

from hf_l3rs.errors import MetaTrainingError
from hf_l3rs.meta.candidates import MetaLoss, Scorer
from hf_l3rs.meta.checkpoint import Progress
from hf_l3rs.meta.outer import OuterState
from hf_l3rs.meta.processes import Processes
from hf_l3rs.meta.selection import Selection
from tests.meta.problems import make_network


class Values(Scorer):
    """Says of meta-weights what they hold."""

    def __init__(self):
        super().__init__(make_network().config, MetaLoss(), Accelerator(cpu=True))

    def score(self, vector, task):
        return type("Score", (), {"loss": float(vector[0]) + task})


def make_selection(tasks=(0.0, 2.0), interval=2, patience=2, references=None):
    processes = Processes(Accelerator(cpu=True))
    return Selection(tasks, Values(), processes, interval=interval, patience=patience, references=references)


def at(progress, generation, value):
    progress.state = OuterState(torch.full((3,), value), generation)
    return progress


def test_the_best_is_kept():
    selection, progress = make_selection(), Progress(OuterState(torch.zeros(3)), {})
    for generation, value in ((2, 5.0), (4, 3.0), (6, 4.0), (8, math.nan)):
        metrics = selection.validate(at(progress, generation, value))
        assert metrics["validation_loss"] == (value + 1 if value == value else math.inf)
        assert selection.is_over(progress) == (generation == 8)
    assert (progress.best_loss, progress.best_generation) == (4.0, 4)
    assert torch.equal(progress.best_mean, torch.full((3,), 3.0))


def test_references_are_measured_once():
    calls = []
    selection = make_selection(references=lambda: calls.append(1) or {"Adam": math.nan})
    progress = Progress(OuterState(torch.zeros(3)), {})
    for _ in range(2):
        selection.measure_references(progress)
    assert len(calls) == 1 and progress.references["Adam"] == math.inf and "untrained" in progress.references


def test_without_tasks_nothing_is_validated_and_patience_is_endless():
    selection, progress = make_selection(tasks=()), Progress(OuterState(torch.zeros(3), 100), {})
    selection.measure_references(progress)
    assert selection.interval == 0 and not progress.references and not selection.is_over(progress)


@pytest.mark.parametrize("cost", [{"num_diverged": 4}, {"num_diverged": 1}])
def test_a_run_with_nothing_to_keep_fails(cost):
    progress = Progress(OuterState(torch.zeros(3)), {}, cost={"evaluations": 4, **cost})
    with pytest.raises(MetaTrainingError, match="gave nothing"):
        make_selection().check_outcome(progress)
