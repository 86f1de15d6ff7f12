"""Rivals train what they should, at the rates and schedules that they say, and one may bring one's own."""

import json
import math
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.baselines import (
    ADAPTIVE_RATES,
    BASELINES,
    Contender,
    l3rs_contender,
    select_baselines,
)
from hf_l3rs.evaluation.benchmark import measure
from hf_l3rs.evaluation.rivals import (
    PROBE_L2,
    Combined,
    ScheduleFreeLearner,
    fit_probe,
    muon_beside_adam,
    with_probe,
)
from hf_l3rs.optimizer.directions import is_matrix_for_muon
from hf_l3rs.tasks.inner_loop import evaluate, run
from tests.evaluation.images import image_task
from tests.meta.problems import make_model, make_network
from tests.tiny import tiny_mobilenet, tiny_resnet, tiny_vit


INSTALLED = {
    name: baseline for name, baseline in BASELINES.items() if not baseline.package or find_spec(baseline.package)
}
TUNING_FREE = ["Linear probe", "Adam at 1e-3", "Trainer's default", "Schedule-free AdamW at 2.5e-3"]


@pytest.mark.parametrize("name", [name for name, each in INSTALLED.items() if each.make and not each.starts_at_probe])
def test_every_baseline_moves_all_that_is_trained(name):
    baseline, model, task = INSTALLED[name], tiny_resnet(), image_task()
    optimizer, scheduler = baseline.at(baseline.learning_rates[0]).build(model, 6)
    trained = {p.data_ptr() for group in optimizer.param_groups for p in group["params"]}
    assert trained == {p.data_ptr() for p in model.parameters()}
    assert (scheduler is not None) == (baseline.schedule != "constant")
    measured = measure(model, baseline.at(baseline.learning_rates[len(baseline.learning_rates) // 2]), task)
    moved = {key for key, tensor in model.named_parameters() if not torch.equal(tensor, task.initial_state[key])}
    assert math.isfinite(measured[6].loss) and moved == {key for key, _ in model.named_parameters()}


def test_baselines_are_searched_in_full_or_not_at_all():
    assert [name for name, baseline in BASELINES.items() if baseline.is_tuning_free] == TUNING_FREE
    assert {len(BASELINES[name].learning_rates) for name in BASELINES.keys() - set(TUNING_FREE)} == {11}
    assert ADAPTIVE_RATES[-1] / ADAPTIVE_RATES[0] >= 100
    assert all(high / low <= 2.01 for low, high in zip(ADAPTIVE_RATES, ADAPTIVE_RATES[1:]))


@pytest.mark.parametrize("schedule, shares", [("cosine", [1, 0.854, 0.5, 0.146]), ("linear", [1, 0.75, 0.5, 0.25])])
def test_schedules_fall_to_zero_over_the_run(schedule, shares):
    optimizer, scheduler = BASELINES[f"Adam {schedule}"].at(0.5).build(make_model(), 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5 * share for share in shares], abs=1e-3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_the_trainers_default_is_what_the_trainer_does(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    baseline = BASELINES["Trainer's default"]
    assert baseline.learning_rates == (args.learning_rate,) and baseline.schedule == args.lr_scheduler_type
    same = {"weight_decay": args.weight_decay, "eps": args.adam_epsilon, "betas": (args.adam_beta1, args.adam_beta2)}
    assert {name: baseline.identity[name] for name in same} == same and args.optim.value.startswith("adamw_torch")
    assert args.warmup_steps == 0 and baseline.at(5e-5).max_grad_norm == args.max_grad_norm


def test_identities_tell_optimizers_apart_and_draw_no_random_numbers():
    identities = {name: replace(baseline).identity for name, baseline in INSTALLED.items()}
    json.dumps(identities, allow_nan=False)
    # the same but for a learning rate that is not searched
    searched = [name for name in identities if name not in ("Adam at 1e-3", "Schedule-free AdamW at 2.5e-3")]
    assert len({json.dumps(identities[name]) for name in searched}) == len(searched)
    assert identities["AdamW cosine"]["weight_decay"] == 0.01 and "lr" not in identities["AdamW cosine"]
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert replace(BASELINES["Muon cosine"]).identity and torch.equal(torch.rand(1), expected)


def test_l3rs_takes_part_as_it_ships():
    networks = [make_network(), make_network(trained=True), make_network(max_grad_norm=1.0)]
    contenders = [l3rs_contender(network) for network in networks]
    assert len({json.dumps(contender.identity) for contender in contenders}) == 3
    assert [contender.max_grad_norm for contender in contenders] == [None, None, 1.0]
    optimizer, scheduler = contenders[0].build(make_model(), 7)
    assert optimizer.network is networks[0] and scheduler is None
    assert optimizer.param_groups[0]["num_training_steps"] == 7


OWN = """
import torch
from hf_l3rs.evaluation.baselines import Baseline

def signs(parameters, lr):
    return torch.optim.Rprop(parameters, lr=lr)

def adamax(model, rate):
    return torch.optim.Adamax(model.parameters(), lr=rate)

ready = Baseline("Adamax linear", adamax, "linear", (1e-3,))
nothing = Baseline("nothing", lambda model, rate: None)
twin = Baseline("Adam cosine", ready.make)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_rivals.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_rivals", None)


def test_one_may_bring_ones_own(own):
    names = ["torch.optim.RAdam", "my_rivals.signs", "my_rivals.ready", "Adam cosine"]
    radam, signs, ready, _ = baselines = select_baselines(names)
    assert [each.name for each in baselines] == [*names[:2], "Adamax linear", "Adam cosine"]
    assert radam.learning_rates == ADAPTIVE_RATES and ready.is_tuning_free
    assert radam.identity["class"].endswith("RAdam") and signs.identity["class"].endswith("Rprop")
    for baseline in baselines:
        task = image_task()
        assert math.isfinite(measure(task.model, baseline.at(baseline.learning_rates[0]), task)[6].loss)


@pytest.mark.parametrize(
    "names, words",
    [
        (["torch.optim."], "got 'torch.optim.'"),
        (["no_such_package.Lion"], "no_such_package"),
        (["torch.optim.Lion9"], "Lion9"),
        (["torch.optim"], "torch.optim"),
        (["math.pi"], "math.pi"),
        (["math.sin"], "math.sin"),
        (["my_rivals.nothing"], "torch.optim.Optimizer"),
        (["Adam cosine", "my_rivals.twin"], "Adam cosine"),
    ],
)
def test_what_is_no_baseline_is_refused_in_one_sentence(names, words, own):
    with pytest.raises(ConfigError) as error:
        select_baselines(names)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_package_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    monkeypatch.setitem(BASELINES, "Schedule-free AdamW", replace(BASELINES["Schedule-free AdamW"]))
    with pytest.raises(ConfigError, match="pip install schedulefree"):
        select_baselines(["Adam cosine", "Schedule-free AdamW"])


def with_gradients(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("make_any", [tiny_resnet, tiny_vit, tiny_mobilenet])
def test_muon_moves_hidden_matrices_and_adam_the_rest(make_any):
    pytest.importorskip("torch", "2.9")
    model = with_gradients(make_any())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    muon_beside_adam(model, 0.01).step()
    others = ("classifier", "embeddings.position", "cls_token")
    of_muon = 0
    for name, parameter in model.named_parameters():
        update = parameter.detach() - before[name]
        if not is_matrix_for_muon(update.shape) or any(other in name for other in others):
            # Adam's first step has the size of the learning rate everywhere
            torch.testing.assert_close(update.abs(), torch.full_like(update, 0.01), rtol=1e-3, atol=1e-5)
            continue
        # all singular values are about as large: 0.2 of Adam's root mean square in all
        update, of_muon = update.flatten(1), of_muon + 1
        values = torch.linalg.svdvals(update) / (0.01 * 0.2 * max(update.shape) ** 0.5)
        assert values.min() > 0.4 and values.max() < 1.6, name
    assert of_muon > 2


def test_muon_takes_what_timm_gives_it():
    taken = [(64, 128), (96, 3, 4, 4), (8, 1024)]
    # vectors, scalars, depthwise kernels, position embeddings, what is thin
    left = [(64,), (), (32, 1, 3, 3), (1, 196, 768), (3, 64), (8, 1025)]
    assert [shape for shape in (*taken, *left) if is_matrix_for_muon(shape)] == taken


def test_muon_without_a_matrix_or_with_an_older_torch_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="name another baseline"):
        muon_beside_adam(nn.Sequential(nn.Linear(2, 2)), 0.01)
    monkeypatch.delattr("torch.optim.Muon")
    with pytest.raises(ConfigError, match=r"torch 2\.9"):
        muon_beside_adam(make_model(), 0.01)


def test_schedulers_and_closures_reach_both_of_two_optimizers():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Combined([torch.optim.Adam([weight], lr=0.1), torch.optim.SGD([weight], lr=0.2)], weights=[1, 1])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def closure():
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4.0
    assert torch.allclose(weight, torch.full((2, 2), 0.7))
    scheduler.step()
    assert [group["lr"] for each in optimizer.optimizers for group in each.param_groups] == [0.05, 0.1]
    assert "lr" not in optimizer.defaults["SGD"] and optimizer.defaults["weights"] == [1, 1]


class Averaging(torch.optim.SGD):
    """Trains at one point and averages at another, as a schedule-free optimizer does; its modes must be switched."""

    def __init__(self, params, lr=0.3):
        super().__init__(params, lr=lr)
        self.params = self.param_groups[0]["params"]
        self.averages = [param.detach().clone() for param in self.params]
        self.training, self.num_steps = False, 0

    def train(self, mode=True):
        assert self.training is not mode
        self.training = mode
        for param, average in zip(self.params, self.averages if self.num_steps else ()):
            trained = param.detach().clone()
            param.data.copy_(average)
            average.copy_(trained)

    def eval(self):
        self.train(False)

    def step(self, closure=None):
        assert self.training, "a step in evaluation mode"
        super().step(closure)
        self.num_steps += 1
        for param, average in zip(self.params, self.averages):
            average.lerp_(param.detach(), 1 / self.num_steps)


def test_schedule_free_is_evaluated_at_its_average_which_changes_nothing_that_follows():
    """Batch norm is taken again at the average, as the authors ask."""
    task, model = image_task(), tiny_resnet()
    contender = Contender(
        "averaging", lambda model, steps: (Averaging(model.parameters(), 0.01), None), learner=ScheduleFreeLearner
    )
    alone, often = measure(model, contender, task), measure(model, contender, task, evaluate_at=(0, 1, 3))
    assert often[6] == alone[6] and list(often) == [0, 1, 3, 6]
    optimizer = Averaging(model.parameters(), lr=0.01)
    run(ScheduleFreeLearner(model, optimizer), task)
    optimizer.eval()
    stale = evaluate(model, task.evaluation)
    model.train()
    with torch.no_grad():
        for batch in task.batches:
            model(pixel_values=batch.pixel_values)
    assert alone[6] == evaluate(model, task.evaluation) != stale


def test_a_probe_is_the_logistic_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 3.0, 0.0]) + 2
    labels = torch.randint(0, 3, (60,), generator=generator)
    weight, bias = fit_probe(features, labels, 3)
    std = features.std(dim=0, correction=0)
    inputs = ((features - features.mean(dim=0)) / torch.where(std > 1e-6, std, 1.0)).double().numpy()
    # its penalty is on the sum of losses
    peer = linear_model.LogisticRegression(C=1 / (60 * PROBE_L2), tol=1e-8, max_iter=1000).fit(inputs, labels.numpy())
    ours = (features.double() @ weight.T + bias).softmax(dim=1)
    torch.testing.assert_close(ours, torch.from_numpy(peer.predict_proba(inputs)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make_any", [tiny_resnet, tiny_vit, tiny_mobilenet])
def test_a_linear_probe_takes_the_frozen_features_of_the_runs_own_images(make_any):
    model, task = make_any(), image_task(num_steps=3)
    task = task._replace(initial_state=dict(make_any(seed=1).state_dict()), model=model)
    probed = with_probe(model, task)
    changed = {name for name, tensor in probed.initial_state.items() if tensor is not task.initial_state[name]}
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"} and len(changed) == 2
    assert all("classifier" in name for name in changed)
    contender = BASELINES["Linear probe"].at(None)
    measured = measure(model, contender, task)
    model.load_state_dict(dict(probed.initial_state))
    assert measured == {3: evaluate(model, task.evaluation)} and contender.learning_rate is None
    # each image of the run counts, and nothing else
    seen = torch.cat([batch.labels for batch in task.batches[:3]])
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(pixel_values=batch.pixel_values).logits for batch in task.batches[:3]])
    assert nn.functional.cross_entropy(logits, seen) < math.log(4)
    more = task._replace(batches=[*task.batches[:3], *image_task(num_steps=9).batches[6:]])
    assert measure(model, contender, more) == measured


def test_lp_ft_starts_at_the_probe_and_goes_on_with_adamw():
    model = tiny_vit()
    task = image_task()._replace(initial_state=dict(tiny_vit(seed=1).state_dict()), model=model)
    lp_ft = BASELINES["LP-FT"].at(1e-3)
    measured = measure(model, lp_ft, task, evaluate_at=(0,))
    probe = measure(model, BASELINES["Linear probe"].at(None), task)
    assert measured[0] == probe[6] != measured[6]
    probed = with_probe(model, task)
    assert measure(model, BASELINES["AdamW cosine"].at(1e-3), probed)[6] == measured[6]


def test_a_probe_needs_one_linear_head():
    model, task = tiny_resnet(), image_task()
    model.classifier[1].requires_grad_(False)
    with pytest.raises(ConfigError, match="leave out the baselines Linear probe"):
        with_probe(model, task)
