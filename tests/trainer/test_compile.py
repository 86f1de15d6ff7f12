"""`torch_compile=True`: reading the loss neither breaks the model's graph nor has it compiled again."""

import pytest
import torch
from torch._dynamo.utils import counters

from hf_l3rs import L3RS, describe_layers
from tests.tiny import parameters, tiny_vit
from tests.trainer.stock import stock_trainer


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled_graphs(model, optimizer, num_micro_batches=10, num_steps=2):
    """How many graphs a run of two steps of many micro-batches makes."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    for _ in range(num_steps):
        for _ in range(num_micro_batches):
            compiled(pixel_values=images, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return len(graphs)


def test_as_many_graphs_as_with_an_optimizer_of_torch():
    model = tiny_vit()
    plain = compiled_graphs(model, torch.optim.SGD(model.parameters(), lr=1e-3))
    torch._dynamo.reset()
    model = tiny_vit()
    optimizer = L3RS(model, num_training_steps=2)
    assert compiled_graphs(model, optimizer) == plain
    assert optimizer.param_groups[0]["step"] == 2


@pytest.mark.slow
def test_the_default_backend(tmp_path, seen_losses, monkeypatch):
    """Needs a C++ compiler on a CPU."""
    # of its own: an interrupted process may leave half a library in the one that all share
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    runs, role_of = [], {layer.name: layer.role for layer in describe_layers(tiny_vit().named_parameters())}
    for compiled in (False, True):
        trainer = stock_trainer(
            tiny_vit(), tmp_path, torch_compile=compiled, gradient_accumulation_steps=2, max_steps=6
        )
        trainer.train()
        # the bias of keys has no gradient but rounding, which an L3RS follows as Adam would
        moved = {name: value for name, value in parameters(trainer.model).items() if role_of[name] != "key.bias"}
        runs.append((moved, seen_losses[:]))
        seen_losses.clear()
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-3, atol=1e-4)
    assert counters["stats"]["unique_graphs"] <= 3
