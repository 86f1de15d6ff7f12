"""What a run is built of: divided or named splits, heads, initial checkpoints, an L3RS to go on from."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from hf_l3rs.meta.evolution import rollout
from hf_l3rs.meta.meta_arguments import L3RSArguments, build_network
from hf_l3rs.tasks.distribution import build_tasks, load_sources
from hf_l3rs.tasks.pools import ImagePool, StreamedImagePool
from hf_l3rs.tasks.task_arguments import SHARES, DatasetArguments, ModelArguments, TaskArguments
from tests.tiny import tiny_resnet


CLASSES = ("ant", "bee", "cow")
COUNTS = {"train": 20, "test": 10}
IMAGE_BYTES = 3 * 4 * 4 * 4
POOLS = tuple((part, pool) for part in (0, 1) for pool in ("batches", "evaluation"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An imagefolder whose every image is of one colour that no other has."""
    folder = tmp_path_factory.mktemp("images")
    value = 0
    for split, count in COUNTS.items():
        for label in CLASSES:
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                colour = np.array([value % 16, value // 16, 8], np.uint8) * 15
                Image.fromarray(np.broadcast_to(colour, (4, 4, 3)).copy()).save(
                    folder / split / label / f"{number}.png"
                )
                value += 1
    return str(folder)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("base"))
    tiny_resnet().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 4, "width": 4}).save_pretrained(folder)
    return folder


def pools_of(sources):
    return [getattr(sources[part], pool) for part, pool in POOLS]


def identities(pool):
    """What tells the images of a pool apart."""
    pixels = pool.fetch(torch.arange(len(pool.labels)))
    return {tuple(image[:, 0, 0].tolist()) for image in pixels}


def make_arguments(images, base_model, tasks=None, **model):
    settings = {"num_classes": 3, "batch_size": 4, "evaluation_size": 6, "min_steps": 2, "num_validation_tasks": 1}
    data = [DatasetArguments(images, batches_split="train")]
    return ModelArguments(base_model, **model), TaskArguments(**{"datasets": data, **settings, **(tasks or {})})


def test_a_single_split_is_divided_without_overlap_and_class_by_class(images, base_model):
    pools = pools_of(load_sources(DatasetArguments(images), base_model, seed=0))
    for pool, share in zip(pools, SHARES.values()):
        assert torch.bincount(pool.labels).tolist() == [round(share * COUNTS["train"])] * 3
        assert len(identities(pool)) == len(pool.labels)
    assert len(set.union(*map(identities, pools))) == 3 * COUNTS["train"]
    again, other = (pools_of(load_sources(DatasetArguments(images), base_model, seed=seed)) for seed in (0, 1))
    assert all(torch.equal(one.pixel_values, two.pixel_values) for one, two in zip(pools, again))
    assert identities(pools[0]) != identities(other[0])


def test_named_splits_are_used_and_the_rest_is_cut_out_of_batches(images, base_model):
    dataset = DatasetArguments(images, evaluation_split="test", classes=["bee", "cow"])
    batches, evaluation, *validation = pools_of(load_sources(dataset, base_model, seed=0))
    assert torch.bincount(evaluation.labels).tolist() == [0, COUNTS["test"], COUNTS["test"]]
    train = [identities(pool) for pool in (batches, *validation)]
    assert sum(map(len, train)) == len(set.union(*train)) == 2 * COUNTS["train"]
    assert not set.union(*train) & identities(evaluation)
    assert batches.class_names == list(CLASSES)


def test_all_pools_together_keep_to_the_limit_and_give_the_same_tasks(images, base_model):
    model_args, task_args = make_arguments(images, base_model)
    whole = build_tasks(model_args, task_args, seed=0)
    num_images = 3 * COUNTS["train"] // 2
    limited = DatasetArguments(images, max_memory_gb=num_images * IMAGE_BYTES / 1e9)
    setup = build_tasks(*make_arguments(images, base_model, {"datasets": [limited]}), seed=0)
    held = pools_of([tasks.sources[0] for tasks in (setup.tasks, setup.validation_tasks)])
    assert {type(pool) for pool in held} == {ImagePool, StreamedImagePool}
    assert sum(len(pool.labels) for pool in held if isinstance(pool, ImagePool)) <= num_images
    for one, two in ((whole.tasks, setup.tasks), (whole.validation_tasks, setup.validation_tasks)):
        for first, second in zip(one.draw(0, 0, 0).batches, two.draw(0, 0, 0).batches):
            assert torch.equal(first.pixel_values, second.pixel_values)


def push(hub, folder, **preprocessing):
    """Makes a commit of a model whose weights are all one number, and returns it."""
    model = tiny_resnet()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(preprocessing["image_mean"][0])
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 4, "width": 4}, **preprocessing).save_pretrained(folder)
    repository = hub.repositories.get("org/base") or hub.create("org/base")
    return repository.commit("main", {file.name: file.read_bytes() for file in folder.iterdir()}, "a model")


@pytest.mark.parametrize("is_old", [True, False])
def test_model_and_image_processor_are_of_one_revision(hub, images, tmp_path, is_old):
    """Else images are prepared as for another model; the artefact remembers which commit it was."""
    commits = [push(hub, tmp_path, image_mean=[mean] * 3) for mean in (0.25, 0.75)]
    revision = commits[0] if is_old else None
    model_args, task_args = make_arguments(images, "org/base", base_model_revision=revision)
    setup = build_tasks(model_args, task_args, seed=0)
    expected = 0.25 if is_old else 0.75
    name = "resnet.embedder.embedder.convolution.weight"
    assert set(setup.model.state_dict()[name].flatten().tolist()) == {expected}
    assert set(setup.tasks.draw(0, 0, 0).initial_state[name].flatten().tolist()) == {expected}
    plain = (
        build_tasks(*make_arguments(images, str(tmp_path)), seed=0).tasks.sources[0].batches.pixel_values
    )  # mean 0.75
    assert torch.equal(setup.tasks.sources[0].batches.pixel_values, plain) == (not is_old)
    network = build_network(setup.model, L3RSArguments(), model_args, task_args, seed=0)
    assert (network.config.base_model, network.config.base_model_revision) == ("org/base", commits[not is_old])


def test_several_models_share_images_and_become_a_mixture(images, base_model, tmp_path):
    """One of another architecture, and of the same image processor."""
    other = str(tmp_path / "vit")
    ViTForImageClassification(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=4,
                  patch_size=2)
    ).save_pretrained(other)  # fmt: skip
    ViTImageProcessorPil(size={"height": 4, "width": 4}).save_pretrained(other)
    arguments = make_arguments(images, base_model, {"batch_sizes": [2, 4]}, more_base_models=[other])
    setup = build_tasks(*arguments, seed=0)
    assert [type(model).__name__ for model in setup.tasks.models] == [
        "ResNetForImageClassification",
        "ViTForImageClassification",
    ]
    first, second = setup.tasks.members
    assert first.sources[0] is second.sources[0]
    sizes = {len(setup.tasks.draw(0, 0, pair).batches[0].labels) for pair in range(16)}
    assert sizes == {2, 4}
    l3rs_args = L3RSArguments(layers_by="role", step_reference="relative")
    network = build_network(setup.tasks.models, l3rs_args, *arguments, seed=0)
    assert network.config.base_model is None and network.config.model_type is None
    for pair in range(2):
        result = rollout(setup.tasks.draw(0, 0, pair).model, network, setup.tasks.draw(0, 0, pair))
        assert result.num_steps == 2
