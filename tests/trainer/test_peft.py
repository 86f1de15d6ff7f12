"""LoRA by PEFT in the stock Trainer: adapters and the trained copy of the head are layers that an L3RS knows."""

import pytest
import torch

from hf_l3rs import L3RS
from hf_l3rs.errors import BindingError
from hf_l3rs.optimizer.layers import describe_trainable_layers, renamed
from hf_l3rs.tasks.model import freeze
from tests.tiny import assert_same, parameters, tiny_resnet, tiny_vit, trained_network
from tests.trainer.stock import raw, stock_trainer


peft = pytest.importorskip("peft")

TARGETS = {"vit": ["q_proj", "v_proj", "query", "value"], "resnet": ["convolution"]}  # of transformers 5.4, too
MAKE = {"vit": tiny_vit, "resnet": tiny_resnet}


def adapted(name, rank=4, adapter="default", **config):
    """A tiny model with LoRA as a user of PEFT has it."""
    torch.manual_seed(0)
    config = {"target_modules": TARGETS[name], "modules_to_save": ["classifier"], **config}
    return peft.get_peft_model(MAKE[name](), peft.LoraConfig(r=rank, lora_alpha=rank, **config), adapter)


def adapted_network(name, **config):
    """Meta-weights that make every feature matter, for what is trained in such a model."""
    named = [(name, parameter) for name, parameter in adapted(name).named_parameters() if parameter.requires_grad]
    return trained_network(ModelOf(named), **config)


class ModelOf:
    """Stands for a model with these parameters alone."""

    def __init__(self, named):
        self.named = named

    def named_parameters(self):
        return iter(self.named)


def test_layers_have_the_names_and_roles_of_what_they_adapt():
    layers = {renamed(layer.name): layer.role for layer in describe_trainable_layers(adapted("vit", adapter="mine"))}
    prefix = "layers.0.attention"
    assert layers == {
        f"{prefix}.q_proj.lora_A.weight": "query.lora_a",
        f"{prefix}.q_proj.lora_B.weight": "query.lora_b",
        f"{prefix}.v_proj.lora_A.weight": "value.lora_a",
        f"{prefix}.v_proj.lora_B.weight": "value.lora_b",
        "classifier.weight": "head.weight",
        "classifier.bias": "head.bias",
    }
    layers = {layer.name: layer.role for layer in describe_trainable_layers(adapted("resnet"))}
    assert set(layers.values()) == {"conv.lora_a", "conv.lora_b", "head.weight", "head.bias"}
    assert "classifier.1.weight" in layers


def test_the_adapters_of_tasks_are_those_of_a_user():
    model = tiny_vit()
    freeze(model, "lora:4")
    assert describe_trainable_layers(model) == describe_trainable_layers(adapted("vit", adapter="another"))


@pytest.mark.parametrize("name", MAKE)
def test_binds_and_trains_the_adapters_and_the_head(name, tmp_path):
    model = adapted(name, adapter="mine")
    before = parameters(model)
    optimizer = L3RS(network=adapted_network(name))
    trainer = stock_trainer(model, tmp_path, optimizer)
    assert optimizer.fit.is_full and set(optimizer.fit.counts) == {"name"}
    trainer.train()
    moved = {key for key, value in parameters(model).items() if not torch.equal(value, before[key])}
    assert moved == {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainer.recorder.losses == pytest.approx([log["loss"] for log in trainer.recorder.logs if "loss" in log])


def test_an_l3rs_for_whole_models_knows_the_head_and_is_refused():
    model = adapted("vit", rank=2)
    optimizer = L3RS(network=trained_network(tiny_vit()), minimum_fit=0).bind(model)
    assert optimizer.fit.counts == {"name": 2, "unknown": 4}
    with pytest.raises(BindingError, match="fits 2 of 6 layers .*head aside.*trainable: lora:2"):
        L3RS(network=trained_network(tiny_vit())).bind(model)


def test_a_second_adapter_that_is_not_trained_is_in_nobodys_way():
    model = adapted("vit")
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["q_proj", "query"]))
    model.set_adapter("default")
    assert L3RS(network=adapted_network("vit")).bind(model).fit.is_full
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_A." in name)
    with pytest.raises(BindingError, match="one adapter of PEFT at a time"):
        L3RS(network=adapted_network("vit"), minimum_fit=0).bind(model)


def test_adapters_are_saved_and_resumed(tmp_path):
    """The Trainer saves adapters, not the model, and loads them into a model that has them already."""
    network = adapted_network("vit")
    args = {"max_steps": 6}
    whole = stock_trainer(
        adapted("vit"), tmp_path / "whole", L3RS(network=network), save_strategy="steps", save_steps=3, **args
    )
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    assert (checkpoint / "adapter_model.safetensors").exists()
    parts = stock_trainer(adapted("vit"), tmp_path / "parts", L3RS(network=network), **args)
    parts.train(resume_from_checkpoint=str(checkpoint))
    assert_same(parameters(whole.model), parameters(parts.model))
    assert_same(raw(whole).state_dict(), raw(parts).state_dict())
