"""The optimizer: what it is built of, what it trains, its steps and its state."""

import copy

import torch
from torch import nn

from hf_l3rs import L3RS, L3RSConfig, L3RSNetwork
from tests.bad_inputs.doors import Row, python
from tests.hub.examples import make_model, make_network
from tests.tiny import assert_same


def build(*args, **kwargs):
    return python(lambda place: L3RS(*args, **kwargs))


def optimizer_of(model, **options):
    return L3RS(model, network=make_network(), **{"num_training_steps": 5, **options})


def ready():
    """A model with gradients, and its optimizer."""
    model = make_model()
    optimizer = optimizer_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model, optimizer


def bind(model, *args, **kwargs):
    return python(lambda place: L3RS(network=make_network()).bind(model, *args, **kwargs))


def on_optimizer(call):
    """Does something to an optimizer that has gradients; nothing may have moved when it is refused."""

    def run(place):
        model, optimizer = ready()
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        try:
            call(optimizer)
        finally:
            after = (model.state_dict(), optimizer.state_dict())
            assert_same(after, before)

    return python(run)


def step(loss):
    return on_optimizer(lambda optimizer: optimizer.step(loss))


def observe(loss):
    return on_optimizer(lambda optimizer: optimizer.observe_loss(loss))


def unbound_step(place):
    L3RS(network=make_network()).step()


def unplanned_step(place):
    _, optimizer = ready()
    optimizer.param_groups[0]["num_training_steps"] = None
    optimizer.step(1.0)


def frozen():
    return make_model().requires_grad_(False)


def of_whole_numbers():
    return [("weight", nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)),
            ("phase", nn.Parameter(torch.ones(3, dtype=torch.complex64)))]  # fmt: skip


def load(change):
    """Loads a state that `change` was done to, into an optimizer that must stay as it was."""

    def run(place):
        _, optimizer = ready()
        optimizer.step(1.0)
        state = change(copy.deepcopy(optimizer.state_dict()))
        before = copy.deepcopy(optimizer.state_dict())
        try:
            optimizer.load_state_dict(state)
        finally:
            assert_same(optimizer.state_dict(), before)

    return python(run)


def group(**changes):
    def change(state):
        state["param_groups"][0].update(changes)
        return state

    return load(change)


def entry(**changes):
    def change(state):
        state["state"][0].update(changes)
        return state

    return load(change)


def without(*path):
    def change(state):
        inner = state
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return state

    return load(change)


def sparse_gradient(place):
    model = nn.Sequential(nn.Embedding(4, 3, sparse=False))
    optimizer = L3RS(model, num_training_steps=5)
    weight = model[0].weight
    weight.grad = torch.sparse_coo_tensor([[0]], torch.ones(1, 3), weight.shape, check_invariants=True)
    optimizer.step(1.0)


class Output(dict):
    """What a model returns, in place of its loss."""


TWICE = [("weight", nn.Parameter(torch.ones(3))), ("weight", nn.Parameter(torch.ones(2)))]

BUILDING = [
    Row("L3RS: parameters without names", build(list(make_model().parameters())),
        "names of the parameters, got .*; pass"),
    Row("L3RS: the name of a model", build("resnet"), "names of the parameters, got str"),
    Row("L3RS: groups without names", build([{"params": list(make_model().parameters())}]), "names of the parameters"),
    Row("L3RS: a group without params", build([{"lr": 1.0}]), "params"),
    Row("L3RS: values that are no tensors", build([("weight", 3.0)]), r"got tuple \(str, float\)"),
    Row("L3RS: no parameter", build([]), "neither meta-weights nor parameters"),
    Row("L3RS: a frozen model", build(frozen()), "pass a model that is not frozen"),
    Row("L3RS: complex parameters", build(of_whole_numbers()), "floating-point parameters, but 'phase' is"),
    Row("L3RS: two parameters of one name", build(TWICE), "named 'weight'|'weight'"),
    Row("L3RS: neither parameters nor network", build(), "neither meta-weights nor parameters.*load it"),
    Row("L3RS: lr of -1", build(make_model(), lr=-1), r"lr is a multiplier .*\[0, inf\), got -1"),
    Row("L3RS: lr in words", build(make_model(), lr="auto"), "lr is a multiplier .*got 'auto'"),
    Row("L3RS: no step", build(make_model(), num_training_steps=0), "num_training_steps must be .*got 0"),
    Row("L3RS: float32_copy in words", build(make_model(), float32_copy="no"), "float32_copy must be True or False"),
    *(Row(f"L3RS: minimum_fit of {value!r}", build(make_model(), minimum_fit=value),
          rf"minimum_fit is a share .*\[0, 1\], got {value!r}")
      for value in (-0.1, 1.1, float("nan"), "auto", None, True)),
    Row("L3RS: another model's network", build(nn.Sequential(nn.Conv2d(3, 9, 3)), network=make_network()),
        r"fits 0 of 2 layers \(0 % .*minimum_fit=0.5; use l3rs-vision.*meta-train.*pass minimum_fit=0"),
    Row("L3RS: a config that is a mapping", build(make_model(), {"directions": ["adam"]}),
        "made of an L3RSConfig, got {'direct"),
    Row("L3RS: a network that is its folder", build(make_model(), network="l3rs"), "network must be .*got"),
    Row("L3RS: both network and config", build(make_model(), make_network().config, network=make_network()),
        "both .*leave"),
    Row("L3RSNetwork: a mapping", python(lambda place: L3RSNetwork({"layers": []})),
        "made of an L3RSConfig, got {'layers': .."),
    Row("L3RSNetwork: a vector of another size", python(lambda place: make_network().load_vector(torch.zeros(3))),
        r"meta-parameters in one vector, got shape \(3,\)"),
]  # fmt: skip

BINDING = [
    Row("bind: None", bind(None), "bound to a model or its named parameters, got no groups"),
    Row("bind: groups", bind([{"params": [pair]} for pair in make_model().named_parameters()]), "got 4 groups; pass"),
    Row("bind: a sparse embedding", bind(nn.Sequential(nn.Embedding(4, 3, sparse=True))), "sparse=False"),
    Row("add_param_group: the same names again", on_optimizer(
        lambda optimizer: optimizer.add_param_group({"params": list(make_model().named_parameters())})), "'0.weight'"),
    Row("add_param_group: no mapping", on_optimizer(lambda optimizer: optimizer.add_param_group(TWICE[:1])), "group"),
]  # fmt: skip

LOSSES = {
    "text": "x",
    "a number in text": "0.5",
    "a list": [1.0],
    "an empty list": [],
    "several numbers": torch.ones(3),
    "no number": torch.ones(0),
    "a complex number": torch.ones((), dtype=torch.complex64),
    "a model's output": Output(loss=torch.tensor(1.0)),
    "true": True,
}
SAYS = "The training loss must be one real number.*got (type|a tensor of shape)"

STEPS = [
    *(Row(f"step: {name}", step(loss), SAYS) for name, loss in LOSSES.items()),
    Row("observe_loss: text", observe("x"), SAYS),
    Row("step: before bind", python(unbound_step), "has no parameters yet; call optimizer.bind"),
    Row("step: without a plan", python(unplanned_step), "how many steps the run will have; call optimizer.bind"),
    Row("step: a sparse gradient", python(sparse_gradient), "sparse gradients.*; build"),
]  # fmt: skip

STATES = [
    Row("state: None", load(lambda state: None), "state and param_groups.*pass what optimizer.state_dict"),
    Row("state: of Adam", load(lambda state: torch.optim.Adam(make_model().parameters()).state_dict()),
        "Adam|meta-weights"),
    Row("state: without param_groups", without("param_groups"), "state and param_groups"),
    Row("state: without a plan", without("param_groups", 0, "num_training_steps"), "lacks num_training_steps"),
    Row("state: groups that are none", load(lambda state: {**state, "param_groups": [3]}), "param.?group"),
    Row("state: no group", load(lambda state: {**state, "param_groups": []}), "layers|group"),
    Row("state: of other meta-weights", group(fingerprint="0" * 16), "made with meta-weights 0{16}, but this L3RS is"),
    Row("state: of other layers", group(param_names=["a", "b", "c", "d"]), "other names; freeze and unfreeze"),
    Row("state: lr of NaN", group(lr=float("nan")), "lr is a multiplier"),
    Row("state: step of -5", group(step=-5), "step must be a whole number of at least 0, got -5"),
    Row("state: a plan of 0", group(num_training_steps=0), "num_training_steps must be"),
    Row("state: too few params", group(params=[0]), "layers|params"),
    Row("state: a buffer is missing", without("state", 0, "adam_exp_avg"),
        "'0.weight'.*load a checkpoint of the same"),
    Row("state: a misshapen buffer", entry(adam_exp_avg=torch.zeros(2)), r"shape \(2,\), but the model has"),
    Row("state: a surplus buffer", entry(max_exp_avg=torch.zeros(6)), "max_exp_avg"),
    Row("state: a buffer of NaN", entry(ema=torch.full((4, 3), torch.nan)), "not numbers; pass"),
    Row("state: a buffer of text", entry(ema="x"), "'x'"),
    Row("state: a layer's step of -5", entry(step=torch.tensor(-5.0)), "step -5"),
    Row("state: entries that are none", load(lambda state: {**state, "state": {0: 3}}), "'0.weight'"),
]  # fmt: skip

CONFIGS = [
    Row("L3RSConfig: names for layers", python(lambda place: L3RSConfig(layers=["weight"])),
        "needs exactly the fields"),
    Row("L3RSConfig: a file's content that is no mapping", python(lambda place: L3RSConfig.from_dict([1])), "mapping"),
    Row("L3RSConfig: a negative exponent",
        python(lambda place: make_network().config.replace(size_exponent=-1)), r"size_exponent must be .*got -1"),
]  # fmt: skip

ROWS = [*BUILDING, *BINDING, *STEPS, *STATES, *CONFIGS]
