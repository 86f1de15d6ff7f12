"""What is differentiated: the mean loss at points evenly along a run; segments are tested with the gradients."""

import torch

from hf_l3rs.meta.gradient import differentiate, evaluation_points
from hf_l3rs.tasks.inner_loop import run
from hf_l3rs.tasks.unrolled import UnrolledLearner
from tests.meta.problems import make_model, make_network, make_tasks


def test_evaluations_lie_evenly_and_end_at_the_end():
    assert evaluation_points(10, 1) == [10]
    assert evaluation_points(10, 3) == [4, 7, 10]
    assert evaluation_points(2, 5) == [1, 2]


def test_segments_change_neither_the_run_nor_where_it_ends():
    model = make_model(dropout=0.3)
    network, task = make_network(model, trained=True), make_tasks(model).draw(0, 0, 0)
    ends = []
    for segment_steps in (0, 2, 3):
        learner = UnrolledLearner(model, network, network.to_vector().requires_grad_(), task.num_training_steps)
        gradient, trajectory, end = differentiate(learner, task, [2, 4], segment_steps)
        ends.append((trajectory, end))
        assert bool(gradient.any()) and not any(param.requires_grad for param in end.params)
    plain = UnrolledLearner(model, network, network.to_vector(), task.num_training_steps, keep_graph=False)
    ends.append((run(plain, task, evaluate_at=[2, 4]), plain.snapshot()))
    for trajectory, end in ends[1:]:
        assert trajectory == ends[0][0] and end.k == 4
        assert all(torch.equal(one, two) for one, two in zip(end.params, ends[0][1].params))
        assert torch.equal(end.random_state, ends[0][1].random_state)
