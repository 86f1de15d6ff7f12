"""Adam is tuned, and the data limit measured where it is asked for."""

from accelerate import Accelerator

from hf_l3rs.evaluation import references
from hf_l3rs.evaluation.baselines import BASELINES
from hf_l3rs.evaluation.data_limit import DATA_LIMIT, DATA_LIMITS
from hf_l3rs.evaluation.references import reference_losses
from tests.meta.problems import make_tasks


def test_the_best_of_all_passes_is_the_limit(monkeypatch):
    losses = dict(zip(["Adam cosine", *DATA_LIMITS], (0.5, 0.3, 0.2, 0.4)))
    asked = []

    def tuned_losses(accelerator, tasks, baselines):
        asked.extend(baselines)
        return {baseline.name: losses[baseline.name] for baseline in baselines}

    monkeypatch.setattr(references, "tuned_losses", tuned_losses)
    assert reference_losses(Accelerator(cpu=True), []) == {"Adam cosine": 0.5}
    assert asked == [BASELINES["Adam cosine"]]
    assert reference_losses(Accelerator(cpu=True), [], data_limit=True) == {"Adam cosine": 0.5, DATA_LIMIT: 0.2}


def test_both_are_measured_on_the_tasks():
    task = make_tasks().draw(0, 0, 0)
    losses = reference_losses(Accelerator(cpu=True), [task], data_limit=True)
    assert set(losses) == {"Adam cosine", DATA_LIMIT} and all(0 < loss < 2 for loss in losses.values())
