import math

import pytest
import torch

from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.candidates import rollout, rollout_population
from hf_l3rs.tasks.distribution import Horizon
from tests.meta.meta_train_tiny import make_trainer
from tests.meta.problems import make_model, make_network, make_tasks
from tests.tiny import tiny_resnet


def candidates(network, count, seed=0):
    noise = torch.randn(count, network.num_meta_parameters, generator=torch.Generator().manual_seed(seed))
    return network.to_vector() + 0.1 * noise


def one_after_another(model, network, vectors, tasks):
    results = []
    for vector, task in zip(vectors, tasks):
        network.load_vector(vector)
        results.append(rollout(model, network, task))
    return results


def assert_same(first, second, tolerance):
    for one, two in zip(first, second):
        assert one.num_steps == two.num_steps
        assert one.accuracy == pytest.approx(two.accuracy)
        assert one.loss == pytest.approx(two.loss, rel=tolerance)
        assert one.meta_loss == pytest.approx(two.meta_loss, rel=tolerance)


@pytest.mark.parametrize("shared", [True, False])
def test_equals_candidates_one_after_another(shared):
    model, network = make_model(), make_network(trained=True)
    distribution = make_tasks(horizon=Horizon(12, 12))
    tasks = [distribution.draw(0, 0, 0 if shared else index // 2) for index in range(6)]
    vectors = candidates(network, 6)
    vectorized = rollout_population(model, network, vectors, tasks)
    assert_same(vectorized, one_after_another(model, network, vectors, tasks), 1e-5)


def test_equals_to_double_precision():
    model, network = make_model().double(), make_network(trained=True)
    distribution = make_tasks(make_model().double(), horizon=Horizon(12, 12))
    for source in distribution.sources:  # images are kept in float32
        object.__setattr__(
            source, "batches", source.batches._replace(pixel_values=source.batches.pixel_values.double())
        )
        held_out = source.evaluation
        object.__setattr__(source, "evaluation", held_out._replace(pixel_values=held_out.pixel_values.double()))
    tasks = [distribution.draw(0, 0, 0)] * 4
    vectors = candidates(network, 4)
    vectorized = rollout_population(model, network, vectors, tasks)
    assert_same(vectorized, one_after_another(model, network, vectors, tasks), 1e-6)


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_batch_norm_statistics_are_each_candidates_own(momentum):
    model = tiny_resnet()
    network = make_network(model, batch_norm_momentum=momentum)
    distribution = make_tasks(model, horizon=Horizon(4, 4))
    tasks = [distribution.draw(0, 0, index) for index in range(3)]
    vectors = candidates(network, 3)
    vectorized = rollout_population(model, network, vectors, tasks)
    assert_same(vectorized, one_after_another(tiny_resnet(), network, vectors, tasks), 1e-3)


def test_a_diverged_candidate_changes_no_other():
    """Invariant 7."""
    model, network = make_model(), make_network()
    task = make_tasks(horizon=Horizon(12, 12)).draw(0, 0, 0)
    vectors = candidates(network, 3)
    alone = rollout_population(model, network, vectors, [task] * 3)
    vectors[1] = math.nan
    broken = rollout_population(model, network, vectors, [task] * 3)
    assert broken[1].meta_loss == math.inf and broken[1].accuracy == 0.0
    assert broken[0] == alone[0] and broken[2] == alone[2]


def test_meta_training_takes_the_same_way(tmp_path):
    plain = make_trainer(str(tmp_path / "plain"), 3)
    vectorized = make_trainer(str(tmp_path / "vectorized"), 3, vectorized_pairs=2)
    for trainer in (plain, vectorized):
        trainer.tasks.models[0].dropout.p = 0.0
        trainer.train()
    torch.testing.assert_close(plain.progress.state.mean, vectorized.progress.state.mean, atol=1e-4, rtol=1e-3)


def test_horizons_must_not_differ(tmp_path):
    trainer = make_trainer(str(tmp_path), vectorized_pairs=2)
    with pytest.raises(ConfigError, match="one fixed horizon"):
        type(trainer)(trainer.network, make_tasks(horizon=Horizon(2, 4)), trainer.es, trainer.args)


def test_every_task_has_the_dropout_that_it_has_alone():
    """Candidates of different tasks do not run as one where the model drops out."""
    model, network = make_model(dropout=0.3), make_network(trained=True)
    distribution = make_tasks(horizon=Horizon(6, 6))
    tasks = [distribution.draw(0, 0, index // 2) for index in range(4)]
    vectors = candidates(network, 4)
    vectorized = rollout_population(model, network, vectors, tasks)
    assert_same(vectorized, one_after_another(model, network, vectors, tasks), 1e-4)
