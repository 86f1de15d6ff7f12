"""Scores are those of rollouts."""

from accelerate import Accelerator

from hf_l3rs.meta.candidates import MetaLoss, Scorer, rollout
from tests.meta.problems import make_model, make_network, make_tasks


def test_scores_are_those_of_rollouts():
    model, network = make_model(), make_network(trained=True)
    meta_loss, task = MetaLoss(trajectory_weight=0.5), make_tasks().draw(0, 0, 0)
    scorer = Scorer(network.config, meta_loss, Accelerator(cpu=True))
    expected = rollout(model, network, task, meta_loss=meta_loss)
    assert scorer.score(network.to_vector(), task) == expected
