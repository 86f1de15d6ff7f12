import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState, GradientState, PartialState

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError
from hf_l3rs.trainer.callback import unwrap_optimizer
from tests.tiny import MODELS, RandomImages, assert_same, learned_optimizer, parameters, tiny_resnet, tiny_vit


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps its settings in singletons."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


def prepare(make, steps=4, accumulation=1):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=accumulation,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    model = make()
    optimizer = learned_optimizer(model).bind(model, num_training_steps=steps)
    loader = torch.utils.data.DataLoader(RandomImages(), batch_size=4, shuffle=True)
    return accelerator, *accelerator.prepare(model, optimizer, loader)


def run(accelerator, model, optimizer, loader, give_loss=False):
    """Trains one epoch; returns the loss of every micro-batch."""
    model.train()
    losses = []
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step(*([loss.detach()] if give_loss else []))
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_an_unbound_l3rs_says_what_its_wrapper_cannot_do():
    """The wrapper has no bind, so the advice is to bind the L3RS itself, which works before and after."""
    accelerator, model = Accelerator(cpu=True), tiny_resnet()
    own = learned_optimizer(model)
    model, optimizer = accelerator.prepare(model, own)
    batch = next(iter(torch.utils.data.DataLoader(RandomImages(4), batch_size=4)))
    accelerator.backward(model(**batch).loss)
    with pytest.raises(BindingError, match=r"on the L3RS itself, .* before accelerator.prepare"):
        optimizer.step()
    own.bind(model, num_training_steps=2)
    accelerator.backward(model(**batch).loss)
    before = parameters(model)
    optimizer.step()
    assert any(not torch.equal(before[name], value) for name, value in parameters(model).items())


@pytest.mark.parametrize(("make", "accumulation"), [(tiny_resnet, 1), (tiny_vit, 2)])
def test_loop_with_accumulation(make, accumulation, seen_losses):
    accelerator, model, optimizer, loader = prepare(make, 8 // accumulation, accumulation)
    losses = torch.tensor(run(accelerator, model, optimizer, loader)).view(-1, accumulation).mean(dim=1)
    assert seen_losses == pytest.approx(losses.tolist(), rel=1e-6)
    own = unwrap_optimizer(optimizer)
    assert isinstance(own, L3RS) and own is not optimizer
    assert own.param_groups[0]["step"] == 8 // accumulation


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_saved_state_goes_on_bit_for_bit(make, tmp_path):
    accelerator, model, optimizer, loader = prepare(make, 16)
    run(accelerator, model, optimizer, loader)
    accelerator.save_state(str(tmp_path))
    losses = run(accelerator, model, optimizer, loader)
    expected = parameters(model), unwrap_optimizer(optimizer).state_dict()

    accelerator, model, optimizer, loader = prepare(make, 16)
    run(accelerator, model, optimizer, loader)  # to the same place in the data
    for param in model.parameters():
        param.data.zero_()
    accelerator.load_state(str(tmp_path))
    assert run(accelerator, model, optimizer, loader) == losses
    assert_same((parameters(model), unwrap_optimizer(optimizer).state_dict()), expected)
