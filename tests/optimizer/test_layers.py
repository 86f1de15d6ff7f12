"""A model as layers: roles and blocks of the common architectures, and which embedding each layer gets."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    SwinConfig,
    SwinForImageClassification,
)

from hf_l3rs import L3RS, L3RSConfig, LayerSpec, describe_layers
from hf_l3rs.optimizer.layers import canonical_name, match_layers, renamed, role_layers
from tests.tiny import tiny_mobilenet, tiny_resnet, tiny_vit, trained_network


def tiny_swin():
    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
    return SwinForImageClassification(SwinConfig(**sizes, window_size=2, num_labels=4))


def tiny_convnext():
    sizes = {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "image_size": 16, "patch_size": 2}
    return ConvNextForImageClassification(ConvNextConfig(**sizes, num_labels=4))


def tiny_dinov2():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    return Dinov2ForImageClassification(Dinov2Config(**sizes, num_labels=4))


MODELS = {
    "resnet": tiny_resnet,
    "vit": tiny_vit,
    "swin": tiny_swin,
    "convnext": tiny_convnext,
    "dinov2": tiny_dinov2,
    "mobilenet": tiny_mobilenet,
}

# name as of late, role, block
EXPECTED = {
    "resnet": [
        ("resnet.embedder.embedder.convolution.weight", "conv.weight", ""),
        ("resnet.encoder.stages.1.layers.0.shortcut.normalization.bias", "norm.bias", "1.0"),
        ("resnet.encoder.stages.1.layers.0.layer.1.convolution.weight", "conv.weight", "1.0.1"),
        ("classifier.1.weight", "head.weight", "1"),
    ],
    "vit": [
        ("vit.embeddings.cls_token", "embedding", ""),
        ("vit.embeddings.patch_embeddings.projection.bias", "conv.bias", ""),
        ("vit.layers.0.attention.q_proj.weight", "query.weight", "0"),
        ("vit.layers.0.attention.k_proj.bias", "key.bias", "0"),
        ("vit.layers.0.attention.v_proj.weight", "value.weight", "0"),
        ("vit.layers.0.attention.o_proj.weight", "attention_output.weight", "0"),
        ("vit.layers.0.layernorm_before.weight", "norm.weight", "0"),
        ("vit.layers.0.mlp.fc1.weight", "linear_up.weight", "0.1"),
        ("vit.layers.0.mlp.fc2.bias", "linear_down.bias", "0.2"),
        ("classifier.bias", "head.bias", ""),
    ],
    "swin": [
        ("swin.encoder.layers.1.blocks.0.attention.q_proj.weight", "query.weight", "1.0"),
        ("swin.encoder.layers.0.downsample.reduction.weight", "linear_down.weight", "0"),
        ("swin.encoder.layers.0.blocks.0.mlp.fc1.weight", "linear_up.weight", "0.0.1"),
    ],
    "convnext": [
        ("convnext.encoder.stages.1.layers.1.layer_scale_parameter", "scale", "1.1"),
        ("convnext.encoder.stages.1.layers.1.dwconv.bias", "conv.bias", "1.1"),
        ("convnext.encoder.stages.1.downsampling_layer.0.weight", "norm.weight", "1.0"),
        ("convnext.encoder.stages.0.layers.0.pwconv1.weight", "linear_up.weight", "0.0.1"),
    ],
    "dinov2": [
        ("dinov2.embeddings.position_embeddings", "embedding", ""),
        ("dinov2.encoder.layer.1.attention.o_proj.weight", "attention_output.weight", "1"),
        ("dinov2.encoder.layer.1.layer_scale2.lambda1", "scale", "1.2.1"),
        ("dinov2.encoder.layer.0.norm2.weight", "norm.weight", "0.2"),
    ],
    "mobilenet": [
        ("mobilenet_v2.layer.15.conv_3x3.convolution.weight", "conv.weight", "2.15.3.3"),
        ("mobilenet_v2.conv_1x1.normalization.weight", "norm.weight", "2.1.1"),
        ("classifier.weight", "head.weight", ""),
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_roles_and_blocks(name):
    model = MODELS[name]()
    layers = describe_layers(model.named_parameters())
    assert [layer.name for layer in layers] == [key for key, _ in model.named_parameters()]
    assert all(layer.shape == tuple(model.get_parameter(layer.name).shape) for layer in layers)
    found = {renamed(layer.name): (layer.role, layer.block) for layer in layers}  # transformers 5.4 has legacy names
    for layer, role, block in EXPECTED[name]:
        assert found[renamed(layer)] == (role, block)


@pytest.mark.parametrize("name", MODELS)
def test_layers_match_the_names_in_a_saved_checkpoint(name, tmp_path):
    """transformers saves some models under legacy names; both directions must find every layer."""
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    layers = describe_layers(model.named_parameters())
    saved = load_file(tmp_path / "model.safetensors")
    in_file = {renamed(key): key for key in saved}
    if any(".q_proj." in layer.name for layer in layers):  # others are saved under the names that they have in memory
        assert {layer.name for layer in layers} - saved.keys()
    legacy = describe_layers((in_file[renamed(layer.name)], saved[in_file[renamed(layer.name)]]) for layer in layers)
    for left, right in ((layers, legacy), (legacy, layers)):
        weights, rules = match_layers(left, right)
        assert set(rules) <= {"name", "rename"} and torch.equal(weights, torch.eye(len(layers), dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("base_model.model.vit.layers.0.q_proj.lora_A.mine.weight", "vit.layers.0.q_proj.lora_A.weight"),
        ("vit.layers.0.q_proj.lora_B.weight.bias", "vit.layers.0.q_proj.lora_B.bias"),
        ("vit.layers.0.q_proj.lora_embedding_A.default", "vit.layers.0.q_proj.lora_embedding_A"),
        ("vit.layers.0.q_proj.base_layer.weight", "vit.layers.0.q_proj.weight"),
        ("module.base_model.model.classifier.modules_to_save.default.1.weight", "classifier.1.weight"),
        ("base_model.model.classifier.original_module.weight", "classifier.original_module.weight"),
        ("module._orig_mod.vit.layers.0.q_proj.weight", "vit.layers.0.q_proj.weight"),
        ("_orig_mod.module.vit.layers.0.q_proj.weight", "vit.layers.0.q_proj.weight"),
        ("vit.layers.0._checkpoint_wrapped_module.q_proj.base_layer.weight", "vit.layers.0.q_proj.weight"),
        ("submodule.weight", "submodule.weight"),
    ],
)
def test_names_of_wrappers_and_peft(name, canonical):
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical


def test_adapters_alone_tell_what_they_adapt():
    """Without the frozen layers, such as from a file of adapters."""
    shapes = {"fc1.lora_A.weight": (2, 8), "fc1.lora_B.weight": (16, 2), "fc1.lora_B.bias": (16,)}
    shapes |= {"c.lora_A.weight": (2, 8, 3, 3), "c.lora_B.weight": (4, 2, 1, 1), "e.lora_embedding_A": (2, 8)}
    layers = describe_layers((name, torch.zeros(shape)) for name, shape in shapes.items())
    roles = ["linear_up.lora_a", "linear_up.lora_b", "linear_up.lora_b_bias", "conv.lora_a", "conv.lora_b"]
    assert [layer.role for layer in layers] == [*roles, "embedding.lora_a"]


def test_headless_names_match():
    """A backbone alone has no `vit.` in front."""
    layers = describe_layers(tiny_vit().named_parameters())
    headless = describe_layers(tiny_vit().vit.named_parameters())
    weights, rules = match_layers(headless, layers)
    assert set(rules) == {"rename"}
    assert [layers[column].name for column in weights.argmax(1)] == [f"vit.{layer.name}" for layer in headless]


def test_a_model_of_timm_matches_its_wrapped_self():
    """transformers puts `timm_model.` before every name, that of the head, too."""
    sizes = {"blocks.0.0.conv_pw.weight": (4, 3, 1, 1), "bn1.bias": (4,), "classifier.weight": (5, 4)}
    plain, wrapped = (
        describe_layers((prefix + name, torch.zeros(shape)) for name, shape in sizes.items())
        for prefix in ("", "timm_model.")
    )
    assert [layer.role for layer in wrapped] == ["conv.weight", "norm.bias", "head.weight"]
    assert [(layer.role, layer.block) for layer in wrapped] == [(layer.role, layer.block) for layer in plain]
    weights, rules = match_layers(plain, wrapped)
    assert set(rules) == {"rename"} and torch.equal(weights, torch.eye(3, dtype=torch.float64))


def layer(name, shape=(4,), role="norm.weight", block="0"):
    return LayerSpec(name, shape, role, block)


def test_block_role_and_shape_match_unknown_names():
    known = [layer("a", block="0"), layer("b", block="1"), layer("c", (4, 4), "linear.weight", "1")]
    weights, rules = match_layers([layer("x", block="1")], known)
    assert rules == ("structure",) and weights.tolist() == [[0, 1, 0]]


def test_a_layer_known_by_role_stands_for_all_of_its_role():
    layers = describe_layers(tiny_vit().named_parameters())
    known = role_layers(layers)
    assert [each.role for each in known] == list(dict.fromkeys(each.role for each in layers))
    assert {(each.name, each.shape, each.block) for each in known if each.role == "norm.bias"} == {
        ("role:norm.bias", (), "")
    }
    weights, rules = match_layers(layers, known)
    assert set(rules) == {"role"}
    assert [known[column].role for column in weights.argmax(1)] == [each.role for each in layers]
    assert torch.equal(match_layers(known, known).weights, torch.eye(len(known), dtype=torch.float64))


def test_a_scalar_is_no_role_layer():
    """A layer that has the shape and the block that stand for a role is matched by its role all the same."""
    (scalar,) = describe_layers([("logit_scale", torch.ones(()))])
    assert match_layers([scalar], role_layers([scalar])).rules == ("role",)
    assert match_layers([layer("x")], [*role_layers([layer("x")]), layer("a")]).rules == ("structure",)


def test_unknown_layer_takes_the_mean_of_its_role():
    known = [layer("a"), layer("b", block="1"), layer("c", (4, 4), "linear.weight", "1")]
    weights, rules = match_layers([layer("x", (7,)), layer("y", (7,), "new")], known)
    assert rules == ("role_mean", "mean")
    assert weights[0].tolist() == [0.5, 0.5, 0]
    assert weights[1].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_frozen_weight_tells_the_role_of_its_bias():
    """With all weights frozen a layer is still a convolution's bias, not a normalisation's; so it is in a copy."""
    model = tiny_vit()
    specs = describe_layers(model.named_parameters())
    roles = {spec.name: spec.role for spec in specs}
    known = tuple(LayerSpec(f"other{index}", spec.shape, spec.role, "far") for index, spec in enumerate(specs))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith(".bias")
    optimizer = L3RS(network=trained_network(model, layers=known), minimum_fit=0).bind(model)
    assert {"conv.bias", "linear_up.bias", "query.bias"} <= {roles[name] for name in optimizer._identity}
    for twin in (optimizer, copy.deepcopy(optimizer)):
        assert list(twin._identity) == optimizer.param_groups[0]["param_names"]
        for name, row in twin._identity.items():
            assert {spec.role for spec, weight in zip(known, row) if weight > 0} == {roles[name]}


def test_size_is_of_all_that_is_trained():
    """Groups, and layers without a gradient, count: the step of a layer is the same as in one group of all."""
    sizes = []
    for kind in ("one group", "two groups", "no gradient"):
        model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.Linear(400, 3))
        torch.nn.init.ones_(model[1].bias)
        config = L3RSConfig(describe_layers(model.named_parameters()), directions=("sgd",), size_exponent=1.0)
        named = list(model.named_parameters())
        groups = [{"params": named[:2]}, {"params": named[2:]}] if kind == "two groups" else named
        optimizer = L3RS(groups, config, num_training_steps=10)
        for index, (_, parameter) in enumerate(named):
            parameter.grad = None if kind == "no gradient" and index == 0 else torch.ones_like(parameter)
        optimizer.step(1.0)
        sizes.append(1 - model[1].bias[0].item())
    assert sizes == pytest.approx([1e-3 * 100_000 / 121_603] * 3, rel=1e-3)
