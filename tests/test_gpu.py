"""What only a GPU can show. Run with `make test-gpu`."""

import pytest
import torch

from hf_l3rs import L3RS
from tests.tiny import MODELS, trained_network


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def train(model, network, steps, device, dtype=torch.float32):
    model = model.to(device, dtype)
    optimizer = L3RS(model, network=network, num_training_steps=steps)
    rng = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(8, 3, 8, 8, generator=rng).to(device, dtype)
        loss = model(pixel_values=images, labels=torch.arange(8, device=device) % 4).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("name", MODELS)
def test_a_step_never_waits_for_the_device(name):
    model = MODELS[name]()
    model, optimizer = train(model, trained_network(model), 3, "cuda")
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.observe_loss(torch.ones((), device="cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", MODELS)
def test_the_gpu_takes_the_steps_of_the_cpu(name):
    network = trained_network(MODELS[name]())
    on_cpu, _ = train(MODELS[name](), network, 3, "cpu", torch.float64)
    on_gpu, _ = train(MODELS[name](), network, 3, "cuda", torch.float64)
    for one, two in zip(on_cpu.parameters(), on_gpu.parameters()):
        torch.testing.assert_close(one, two.cpu(), atol=1e-6, rtol=1e-6)


def test_bf16_parameters_keep_float32_state():
    model = MODELS["vit"]()
    model, optimizer = train(model, trained_network(model), 3, "cuda", torch.bfloat16)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    state = optimizer.state[next(iter(model.parameters()))]
    assert state["adam_exp_avg"].dtype == torch.float32
    assert state["step"].device.type == "cpu"
