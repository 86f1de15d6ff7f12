"""Invariant 10: set-ups that cannot work are refused before the first step, in one sentence that names the way out."""

import pytest
import torch
from torch import nn
from transformers import Trainer

from hf_l3rs import L3RSCallback, L3RSTrainer
from hf_l3rs.errors import BindingError, UnsupportedSetupError
from tests.tiny import (
    RandomImages,
    assert_same,
    learned_optimizer,
    parameters,
    tiny_resnet,
    tiny_vit,
    trained_network,
    training_arguments,
)
from tests.trainer.stock import raw, stock_trainer


def test_unsupported_engines_are_refused(tmp_path, monkeypatch):
    model = tiny_resnet()
    optimizer = learned_optimizer(model)
    args = training_arguments(tmp_path)
    args.deepspeed_plugin = object()
    with pytest.raises(UnsupportedSetupError, match="DeepSpeed.*DDP"):
        L3RSCallback().on_init_end(args, None, None, model=model, optimizer=optimizer)
    args = training_arguments(tmp_path)
    args.fsdp = True
    with pytest.raises(UnsupportedSetupError, match="FSDP.*DDP"):
        L3RSCallback().on_init_end(args, None, None, model=model, optimizer=optimizer)
    for engine in ("DEEPSPEED", "FSDP"):
        with monkeypatch.context() as patch:
            patch.setenv(f"ACCELERATE_USE_{engine}", "true")
            with pytest.raises(UnsupportedSetupError, match="DDP"):
                learned_optimizer(model).bind(model)


def test_data_parallel_is_refused(tmp_path):
    trainer = stock_trainer(tiny_resnet(), tmp_path)
    trainer.args._n_gpu = 2
    with pytest.raises(UnsupportedSetupError, match="torchrun"):
        trainer.train()


def test_hidden_losses_are_refused(tmp_path):
    with pytest.raises(BindingError, match="L3RSTrainer"):
        stock_trainer(tiny_resnet(), tmp_path, label_smoothing_factor=0.1).train()
    model = tiny_resnet()
    trainer = Trainer(
        model=model,
        args=training_arguments(tmp_path),
        train_dataset=RandomImages(),
        optimizers=(learned_optimizer(model), None),
        compute_loss_func=lambda outputs, labels, **_: torch.nn.functional.cross_entropy(outputs.logits, labels),
    )
    before = parameters(model)
    with pytest.raises(BindingError, match="L3RSTrainer"):
        trainer.train()
    assert_same(parameters(model), before)


def test_hidden_loss_is_fine_where_none_is_needed(tmp_path):
    model = tiny_resnet()
    optimizer = learned_optimizer(model, features=("relative_time", "grad_norm"))
    trainer = stock_trainer(model, tmp_path, optimizer, label_smoothing_factor=0.1)
    trainer.train()
    assert raw(trainer).param_groups[0]["step"] == 4


class WithEmbedding(nn.Module):
    """A model with an embedding whose gradients are sparse."""

    def __init__(self, cls=nn.Embedding):
        super().__init__()
        self.table = cls(4, 3, sparse=True)
        self.head = nn.Linear(3, 4)

    def forward(self, pixel_values, labels=None):
        index = labels if isinstance(self.table, nn.Embedding) else labels[:, None]
        return {"loss": nn.functional.cross_entropy(self.head(self.table(index)), labels)}


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embeddings_are_refused(cls, tmp_path):
    model = WithEmbedding(cls)
    with pytest.raises(UnsupportedSetupError, match=r"'table'.*sparse=False"):
        stock_trainer(model, tmp_path)
    trainer = L3RSTrainer(
        model, training_arguments(tmp_path), train_dataset=RandomImages(), l3rs=trained_network(model)
    )
    before = parameters(model)
    with pytest.raises(UnsupportedSetupError, match="'table'"):
        trainer.train()
    assert_same(parameters(model), before)


def test_frozen_sparse_embeddings_are_fine_until_they_are_thawed(tmp_path):
    model = WithEmbedding()
    model.table.requires_grad_(False)
    trainer = stock_trainer(model, tmp_path, max_steps=1)
    trainer.train()
    model.table.requires_grad_(True)
    with pytest.raises(UnsupportedSetupError, match="'table'"):
        trainer.train()


def test_evaluating_in_low_precision_is_fine(tmp_path):
    """The Trainer then places the model only when it trains, after the optimizer was bound."""
    trainer = stock_trainer(tiny_resnet(), tmp_path, eval_strategy="steps", eval_steps=2, bf16_full_eval=True)
    trainer.train()
    assert raw(trainer).param_groups[0]["step"] == 4
    assert all(param.dtype == torch.float32 for param in trainer.model.parameters())


def saving_trainer(model, folder, **args):
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    return stock_trainer(model, folder, **steps, **args)


def test_a_best_model_that_would_be_a_mixture_is_refused(tmp_path):
    """transformers saves a ViT's weights by older names, and the Trainer does not load those back. The way out works;
    other models are none of this."""
    trainer = saving_trainer(tiny_vit(), tmp_path / "vit", load_best_model_at_end=True)
    before = parameters(trainer.model)
    with pytest.raises(UnsupportedSetupError, match="load_best_model_at_end would mix"):
        trainer.train()
    assert_same(parameters(trainer.model), before)
    trainer = saving_trainer(tiny_vit(), tmp_path / "best", metric_for_best_model="loss")
    trainer.train()
    best = type(trainer.model).from_pretrained(trainer.state.best_model_checkpoint)
    names = [f"checkpoint-{step}" for step in (2, 4)]
    assert trainer.state.best_model_checkpoint.rpartition("/")[2] in names
    assert parameters(best).keys() == parameters(trainer.model).keys()
    saving_trainer(tiny_resnet(), tmp_path / "resnet", load_best_model_at_end=True).train()
