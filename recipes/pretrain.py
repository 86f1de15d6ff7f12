"""Trains a small base model for meta-training with the stock `Trainer`: what a learned optimizer then fine-tunes.

    python recipes/pretrain.py --architecture resnet --output_dir recipes/base_models/resnet-tiny-fashion
    python recipes/pretrain.py --architecture vit --output_dir recipes/base_models/vit-tiny-fashion
    python recipes/pretrain.py --architecture resnet --output_dir /tmp/resnet --smoke

The output folder is a complete model repository: config.json, model.safetensors, preprocessor_config.json, README.md.
Every argument of `transformers.TrainingArguments` is accepted; `ARCHITECTURES` and `DEFAULTS` below have the values
used without any. With `--save_strategy steps` the same command goes on where an interrupted one stopped.
"""

import argparse
import json
import logging
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import ConfigError, reason
from hf_l3rs.files import write_files
from hf_l3rs.settings import parse_settings
from hf_l3rs.tasks.images import load_image_pool
from hf_l3rs.tasks.pools import ImagePool


logger = logging.getLogger("pretrain")

IMAGE_SIZE = 28


class Architecture(NamedTuple):
    """
    A model type of transformers.

    Args:
        title (`str`): For people.
        sizes (`dict`): Of its configuration.
        max_steps, learning_rate, weight_decay: How long and how it is trained, by default.
    """

    title: str
    sizes: dict[str, Any]
    max_steps: int
    learning_rate: float
    weight_decay: float


_TRANSFORMER = {"image_size": IMAGE_SIZE, "patch_size": 7, "num_attention_heads": 4}
ARCHITECTURES = {
    "resnet": Architecture(
        "ResNet",
        {
            "num_channels": 3,
            "embedding_size": 16,
            "hidden_sizes": [16, 32, 64],
            "depths": [1, 1, 1],
            "layer_type": "basic",
            "downsample_in_first_stage": False,
        },
        *(1200, 4e-3, 1e-2),
    ),
    "vit": Architecture(
        "ViT",
        {**_TRANSFORMER, "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128},
        *(6000, 1.5e-3, 5e-2),
    ),
    "convnext": Architecture(
        "ConvNeXt",
        {"patch_size": 2, "hidden_sizes": [24, 48, 96], "depths": [1, 2, 1], "num_stages": 3},
        *(2000, 4e-3, 5e-2),
    ),
    "dinov2": Architecture(
        "DINOv2-shaped ViT",
        {**_TRANSFORMER, "hidden_size": 64, "num_hidden_layers": 4, "mlp_ratio": 2},
        *(6000, 1.5e-3, 5e-2),
    ),
    "swin": Architecture(
        "Swin Transformer",
        {
            "image_size": IMAGE_SIZE,
            "patch_size": 4,
            "embed_dim": 48,
            "depths": [2, 2],
            "num_heads": [3, 6],
            "window_size": 4,  # four windows of 7x7 patches, and shifted ones
            "mlp_ratio": 2.0,
        },
        *(2000, 1.5e-3, 5e-2),
    ),
    "regnet": Architecture(
        "RegNet",
        {
            "embedding_size": 16,
            "hidden_sizes": [24, 48, 96],
            "depths": [1, 3, 2],
            "groups_width": 8,
            "layer_type": "y",  # with squeeze and excitation
        },
        *(2000, 4e-3, 1e-2),
    ),
    "efficientnet": Architecture(
        "EfficientNet",
        {
            "image_size": IMAGE_SIZE,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.5,
            "hidden_dim": 320,  # 1,280 times the width
            "dropout_rate": 0.0,
            "drop_connect_rate": 0.0,
            "strides": [1, 1, 2, 1, 2, 1, 1],  # few, as images are small
        },
        *(2000, 4e-3, 1e-2),
    ),
    "mobilenet_v2": Architecture(
        "MobileNetV2",
        {
            "image_size": IMAGE_SIZE,
            "depth_multiplier": 0.25,
            "output_stride": 16,
            "finegrained_output": False,  # the last layers are narrow, too
            "tf_padding": False,
            "classifier_dropout_prob": 0.0,
        },
        *(2000, 4e-3, 1e-2),
    ),
}
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 500,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 200,
    "dataloader_pin_memory": False,
    "logging_steps": 100,
    "remove_unused_columns": False,  # batches are made of tensors
    "save_strategy": "no",
    "seed": 0,
}


@dataclass
class ModelArguments:
    """What to train."""

    architecture: str = field(
        default="resnet",
        metadata={
            "help": "A model type of transformers; ARCHITECTURES has the sizes.",
            "choices": list(ARCHITECTURES),
        },
    )
    image_size: int = field(default=IMAGE_SIZE, metadata={"help": "Pixels of a side of the model's images."})
    config_overrides: str = field(
        default="{}", metadata={"help": "Other sizes, as JSON, such as '{\"depths\": [2, 2, 2]}'."}
    )
    smoke: bool = field(default=False, metadata={"help": "A few steps on a few images, to see that everything runs."})


@dataclass
class DataArguments:
    """What to train it on."""

    dataset_name: list[str] = field(
        default_factory=lambda: [str(Path(__file__).resolve().parent / "data" / "fashion_mnist")],
        metadata={
            "help": "Hub id, local folder or .parquet file of an image-classification data set. Several are joined, "
            "each with its own classes."
        },
    )
    train_split: str = field(default="pretrain", metadata={"help": "Split to train on."})
    test_split: str = field(default="pretrain_test", metadata={"help": "Split to measure the accuracy on."})
    augment: Literal["none", "shift", "affine"] = field(
        default="shift",
        metadata={
            "help": "What is done to training images at random: shift moves them by up to two pixels and flips them; "
            "affine also turns, scales and recolours them."
        },
    )


def build_model(args: ModelArguments, class_names: list[str]):
    """
    The untrained model for RGB images and its image processor.

    Raises:
        ConfigError: If a size is unknown, which a configuration would take and ignore, or there is no such model.
    """
    from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil

    known, given = ARCHITECTURES[args.architecture].sizes, args.config_overrides
    try:
        overrides = json.loads(given)
    except ValueError as error:
        raise ConfigError(f"config_overrides must be a JSON object, got {given!r} ({error}).") from error
    if not isinstance(overrides, dict) or not set(overrides) <= set(known):
        raise ConfigError(
            f"config_overrides must be a JSON object with any of {', '.join(known)} for a {args.architecture}, "
            f"got {given!r}."
        )
    sizes = known | ({"image_size": args.image_size} if "image_size" in known else {}) | overrides
    try:
        config = AutoConfig.for_model(
            args.architecture,
            id2label=dict(enumerate(class_names)),
            label2id={name: number for number, name in enumerate(class_names)},
            **sizes,
        )
        model = AutoModelForImageClassification.from_config(config)
        if args.image_size < 1:
            raise ValueError(f"image_size is {args.image_size}, but must be at least 1")
    except Exception as error:  # of every kind, as what is wrong with sizes may be
        raise ConfigError(f"There is no {args.architecture} with {sizes} ({reason(error)}); give others.") from error
    image_processor = ViTImageProcessorPil(
        size={"height": args.image_size, "width": args.image_size}, image_mean=[0.286] * 3, image_std=[0.353] * 3
    )
    return model, image_processor


def load_pools(names: list[str], split: str, image_processor, max_images: int | None) -> ImagePool:
    """The images of one split of all data sets; the classes of several are numbered one after another."""
    import torch

    pools = [
        # max_memory: the augmentation wants them all in one tensor
        load_image_pool(name, image_processor, split=split, max_images=max_images, max_memory=None)
        for name in names
    ]
    if len(pools) == 1:
        return pools[0]
    class_names: list[str] = []
    labels = []
    for name, pool in zip(names, pools):
        labels.append(pool.labels + len(class_names))
        class_names += [f"{Path(name).name}/{each}" for each in pool.class_names]
    return ImagePool(torch.cat([pool.pixel_values for pool in pools]), torch.cat(labels), class_names)


def build_dataset(pool, class_ids, augment: str):
    """A torch data set of whole batches over an `ImagePool`; labels become 0, 1, … in the order of `class_ids`."""
    import torch

    labels = torch.searchsorted(class_ids, pool.labels)

    class TensorImages(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index):
            return {key: value[0] for key, value in self.__getitems__([index]).items()}

        def __getitems__(self, indices):
            images = pool.pixel_values[indices]
            if augment == "shift":
                images = shift(images)
            elif augment == "affine":
                # Of the batch alone: batches are fetched ahead, which a resumed training must not see.
                images = vary(images, torch.Generator().manual_seed(hash(tuple(indices)) % 2**63))
            return {"pixel_values": images, "labels": labels[indices]}

    return TensorImages()


def shift(images):
    """Moves each of a batch of images by up to two pixels, and flips it or not; the border is repeated."""
    import torch

    count, _, height, width = images.shape
    rows = torch.randint(0, 5, (count, 1, 1)) + torch.arange(height)[:, None]
    columns = torch.arange(width).expand(count, 1, width)
    columns = torch.where(torch.rand(count, 1, 1) < 0.5, columns, width - 1 - columns)
    columns = columns + torch.randint(0, 5, (count, 1, 1))
    wide = torch.nn.functional.pad(images, (2,) * 4, "replicate")
    # Indices around a slice put the channels last.
    return wide[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def vary(images, generator):
    """Turns, scales, moves, flips and recolours each of a batch of images, at random."""
    import torch

    def draw(low: float, high: float, *shape: int):
        return torch.empty(len(images), *shape).uniform_(low, high, generator=generator)

    angle, scale, flip = draw(-0.25, 0.25), draw(0.8, 1.15), draw(-1, 1).sign()
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    across, down = draw(-0.15, 0.15), draw(-0.15, 0.15)
    places = torch.stack([cosine * flip, -sine, across, sine * flip, cosine, down], dim=1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(places, list(images.shape), align_corners=False)
    images = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return images * draw(0.7, 1.2, 1, 1, 1) * draw(0.85, 1.15, 3, 1, 1) + draw(-0.3, 0.3, 1, 1, 1)


def measure(prediction, class_names: list[str], datasets: list[str]) -> dict[str, float]:
    """The accuracy, and that on the images of each data set if there are several."""
    correct = prediction.predictions.argmax(-1) == prediction.label_ids
    accuracies = {"accuracy": float(correct.mean())}
    if len(datasets) > 1:
        for name in (Path(each).name for each in datasets):
            its_own = [class_names[label].startswith(f"{name}/") for label in prediction.label_ids]
            accuracies[f"accuracy_{name}"] = float(correct[its_own].mean())
    return accuracies


def write_card(
    folder: Path, argv: list[str], model_args: ModelArguments, data: DataArguments, args, model, metrics
) -> None:
    """Writes the README.md of the model's repository."""
    import torch
    import transformers
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    datasets = [Path(name).name if Path(name).exists() else name for name in data.dataset_name]
    dataset = "-and-".join(datasets)
    pretty_name = ", ".join("Fashion-MNIST" if name == "fashion_mnist" else name for name in datasets)
    changes = {
        "none": "",
        "shift": ", shifted and flipped at random",
        "affine": ", turned, scaled, shifted, flipped and recoloured at random",
    }[data.augment]
    size, parameters = model_args.image_size, sum(parameter.numel() for parameter in model.parameters())
    what = (
        f"A small {ARCHITECTURES[model_args.architecture].title} ({parameters:,} parameters, {size}x{size} RGB images)"
    )
    class_names = model.config.id2label.values()
    classes = f"{len(class_names):,} classes"
    if len(class_names) < 50:
        classes = f"the classes\n{', '.join(class_names)}"
    accuracies = {pretty_name: metrics["eval_accuracy"]}
    if len(datasets) > 1:
        accuracies |= {name: metrics[f"eval_accuracy_{name}"] for name in datasets}
    rows = "\n".join(f"| {name} | `{data.test_split}` | {accuracy:.4f} |" for name, accuracy in accuracies.items())
    schedule = f"{args.lr_scheduler_type.value} after {args.warmup_steps:g} steps of warm-up"
    rights = "Fashion-MNIST is Copyright 2017 Zalando SE, MIT licence." if "fashion_mnist" in datasets else ""
    rights += "" if datasets == ["fashion_mnist"] else " The images are under the licences of their data sets."
    torch_version = torch.__version__.split("+")[0]
    card_data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["image-classification", model_args.architecture],
        metrics=["accuracy"],
        model_name=folder.name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=dataset,
                dataset_name=pretty_name,
                dataset_split=data.test_split,
                metric_type="accuracy",
                metric_value=round(metrics["eval_accuracy"], 4),
            )
        ],
    )
    text = f"""
# {folder.name}

{what} that tells apart {classes} of {pretty_name}.
It is a base model for meta-training learned optimizers on tasks that tests and demonstrations can afford; it is of
little use by itself.

| data | split | accuracy |
|---|---|---|
{rows}

The loss is {metrics["eval_loss"]:.4f}.

Made from scratch on the split `{data.train_split}` with {args.max_steps:,} steps of AdamW: batches of
{args.train_batch_size} images{changes}, learning rate {args.learning_rate:g}
({schedule}), weight decay {args.weight_decay:g}, seed {args.seed};
torch {torch_version}, transformers {transformers.__version__}:

```bash
python recipes/pretrain.py {shlex.join(argv)}
```

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("{args.output_dir}")
image_processor = AutoImageProcessor.from_pretrained("{args.output_dir}", backend="pil")
```

The weights are under the Apache 2.0 licence. {rights}
"""
    ModelCard(f"---\n{card_data.to_yaml()}\n---\n{text}").save(folder / "README.md")


def read_arguments(argv: list[str]) -> tuple:
    """
    The arguments, with the defaults of the architecture.

    Raises:
        ConfigError: If `TrainingArguments` does not allow a value.
    """
    from transformers import TrainingArguments

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--architecture", choices=ARCHITECTURES, default="resnet")
    how = ARCHITECTURES[first.parse_known_args(argv)[0].architecture]._asdict()
    defaults = DEFAULTS | {name: how[name] for name in ("max_steps", "learning_rate", "weight_decay")}
    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter, "usage": "%(prog)s [--OPTION VALUE ...]"}
    try:
        return parse_settings(
            (ModelArguments, DataArguments, TrainingArguments), defaults, argv, description=__doc__, **layout
        )
    except ValueError as error:
        raise ConfigError(f"The arguments do not go together ({reason(error)}); change them.") from error


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains, measures and saves the model; returns the measured metrics."""
    from transformers import Trainer, set_seed
    from transformers.trainer_utils import get_last_checkpoint

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    argv = sys.argv[1:] if argv is None else argv
    model_args, data_args, training_args = read_arguments(argv)
    folder = Path(training_args.output_dir)
    write_files(folder, {})  # found out now that it cannot be written, not after training
    if model_args.smoke:
        training_args.max_steps, training_args.warmup_steps, training_args.logging_steps = 4, 1, 1
    set_seed(training_args.seed)

    _, image_processor = build_model(model_args, ["unused"])
    train_pool, test_pool = (
        load_pools(data_args.dataset_name, split, image_processor, 512 if model_args.smoke else None)
        for split in (data_args.train_split, data_args.test_split)
    )
    class_ids = train_pool.labels.unique()
    class_names = [train_pool.class_names[number] for number in class_ids]
    set_seed(training_args.seed)
    model, _ = build_model(model_args, class_names)
    # ResNet takes the Trainer's loss arguments but ignores them, which would inflate its loss under accumulation.
    model.accepts_loss_kwargs = False
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=build_dataset(train_pool, class_ids, data_args.augment),
        eval_dataset=build_dataset(test_pool, class_ids, "none"),
        data_collator=lambda batch: batch,
        compute_metrics=lambda prediction: measure(prediction, class_names, data_args.dataset_name),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
    metrics = trainer.evaluate()
    logger.info("accuracy %.4f on %s", metrics["eval_accuracy"], data_args.test_split)

    if trainer.is_world_process_zero():
        model.save_pretrained(folder)
        image_processor.save_pretrained(folder)
        write_card(folder, argv, model_args, data_args, training_args, model, metrics)
        for checkpoint in folder.glob("checkpoint-*"):  # the model is complete, and goes on no more
            shutil.rmtree(checkpoint)
    return metrics


if __name__ == "__main__":
    run_script(main)
