import torch

from hf_l3rs.evaluation.trained_part import TrainedPart
from tests.meta.problems import make_model
from tests.tiny import tiny_resnet, tiny_vit


def test_the_whole_model_or_its_head_in_the_models_order():
    model = make_model()
    assert list(map(id, TrainedPart(model).parameters)) == list(map(id, model.parameters()))
    head = TrainedPart(model, head_only=True)
    assert list(map(id, head.parameters)) == list(map(id, model.classifier.parameters()))
    assert head.groups(0.1) is not None and not head.hidden_weights


def test_what_requires_no_gradient_is_left_out():
    model = make_model()
    model.encoder.requires_grad_(False)
    assert len(TrainedPart(model).parameters) == 2


def test_the_head_may_have_a_rate_of_its_own():
    model = make_model()
    trunk, head = TrainedPart(model, head_ratio=10.0).groups(0.01)
    assert (trunk["lr"], head["lr"]) == (0.01, 0.1)
    assert list(map(id, head["params"])) == list(map(id, model.classifier.parameters()))
    assert list(map(id, trunk["params"])) == list(map(id, model.encoder.parameters()))


def test_hidden_weights_are_those_of_linear_layers_and_convolutions():
    for model in (tiny_resnet(), tiny_vit()):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        hidden = {names[id(weight)] for weight in TrainedPart(model).hidden_weights}
        kinds = (torch.nn.Linear, torch.nn.Conv2d)
        assert hidden == {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, kinds) and not name.startswith("classifier")
        }


def test_batch_norm_is_seen():
    assert TrainedPart(tiny_resnet()).has_batch_norm and not TrainedPart(tiny_vit()).has_batch_norm
