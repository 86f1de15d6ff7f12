"""Trains a small base model for meta-training with the stock `Trainer`: what a learned optimizer then fine-tunes.

    python recipes/pretrain.py --architecture resnet --output_dir recipes/base_models/resnet-tiny-fashion
    python recipes/pretrain.py --architecture vit --output_dir recipes/base_models/vit-tiny-fashion
    python recipes/pretrain.py --architecture resnet --output_dir /tmp/resnet --smoke

The output folder is a complete model repository: config.json, model.safetensors, preprocessor_config.json, README.md.
Every argument of `transformers.TrainingArguments` is accepted; `DEFAULTS` below has the values used without any.
"""

import argparse
import json
import logging
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import ConfigError, reason
from hf_l3rs.files import write_files
from hf_l3rs.settings import settings_parser
from hf_l3rs.tasks.images import load_image_pool


logger = logging.getLogger("pretrain")

IMAGE_SIZE = 28
_TRANSFORMER = {"image_size": IMAGE_SIZE, "patch_size": 7, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "resnet": {
        "num_channels": 3,
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 64],
        "depths": [1, 1, 1],
        "layer_type": "basic",
        "downsample_in_first_stage": False,
    },
    "vit": {**_TRANSFORMER, "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128},
    "convnext": {"patch_size": 2, "hidden_sizes": [24, 48, 96], "depths": [1, 2, 1], "num_stages": 3},
    "dinov2": {**_TRANSFORMER, "hidden_size": 64, "num_hidden_layers": 4, "mlp_ratio": 2},
    "swin": {
        "image_size": IMAGE_SIZE,
        "patch_size": 4,
        "embed_dim": 48,
        "depths": [2, 2],
        "num_heads": [3, 6],
        "window_size": 4,  # four windows of 7x7 patches, and shifted ones
        "mlp_ratio": 2.0,
    },
    "mobilenet_v2": {
        "image_size": IMAGE_SIZE,
        "depth_multiplier": 0.25,
        "output_stride": 16,
        "finegrained_output": False,  # the last layers are narrow, too
        "tf_padding": False,
        "classifier_dropout_prob": 0.0,
    },
}
NAMES = {
    "resnet": "ResNet",
    "vit": "ViT",
    "convnext": "ConvNeXt",
    "dinov2": "DINOv2-shaped ViT",
    "swin": "Swin Transformer",
    "mobilenet_v2": "MobileNetV2",
}
_OF_TRANSFORMERS = {"max_steps": 6000, "learning_rate": 1.5e-3, "weight_decay": 5e-2}
DEFAULTS: dict[str, dict[str, Any]] = {
    "resnet": {"max_steps": 1200, "learning_rate": 4e-3, "weight_decay": 1e-2},
    "vit": _OF_TRANSFORMERS,
    "convnext": {**_OF_TRANSFORMERS, "max_steps": 2000, "learning_rate": 4e-3},
    "dinov2": _OF_TRANSFORMERS,
    "swin": {**_OF_TRANSFORMERS, "max_steps": 2000},
    "mobilenet_v2": {"max_steps": 2000, "learning_rate": 4e-3, "weight_decay": 1e-2},
}
COMMON_DEFAULTS: dict[str, Any] = {
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

    architecture: Literal["resnet", "vit", "convnext", "dinov2", "swin", "mobilenet_v2"] = field(
        default="resnet", metadata={"help": "A model type of transformers; CONFIGS has the sizes."}
    )
    config_overrides: str = field(
        default="{}", metadata={"help": "Other sizes, as JSON, such as '{\"depths\": [2, 2, 2]}'."}
    )
    smoke: bool = field(default=False, metadata={"help": "A few steps on a few images, to see that everything runs."})


@dataclass
class DataArguments:
    """What to train it on."""

    dataset_name: str = field(
        default=str(Path(__file__).resolve().parent / "data" / "fashion_mnist"),
        metadata={"help": "Hub id, local folder or .parquet file of an image-classification data set."},
    )
    train_split: str = field(default="pretrain", metadata={"help": "Split to train on."})
    test_split: str = field(default="pretrain_test", metadata={"help": "Split to measure the accuracy on."})
    augment: bool = field(
        default=True, metadata={"help": "Shift training images by up to two pixels and flip them, at random."}
    )


def read_overrides(model_args: ModelArguments) -> dict[str, Any]:
    """
    The sizes that are given in place of those of CONFIGS.

    Raises:
        ConfigError: If they are no JSON object, or one is unknown: a configuration would take it and change nothing.
    """
    known, given = CONFIGS[model_args.architecture], model_args.config_overrides
    try:
        overrides = json.loads(given)
    except ValueError as error:
        raise ConfigError(f"config_overrides must be a JSON object, got {given!r} ({error}).") from error
    if not isinstance(overrides, dict) or not set(overrides) <= set(known):
        raise ConfigError(
            f"config_overrides must be a JSON object with any of {', '.join(known)} for a {model_args.architecture}, "
            f"got {given!r}."
        )
    return overrides


def build_model(architecture: str, class_names: list[str], overrides: dict[str, Any] | None = None):
    """
    The untrained model for RGB images of 28x28 pixels and its image processor.

    Raises:
        ConfigError: If there is no model of these sizes.
    """
    from transformers import AutoConfig, AutoModelForImageClassification, ViTImageProcessorPil

    sizes = CONFIGS[architecture] | (overrides or {})
    try:
        config = AutoConfig.for_model(
            architecture,
            id2label=dict(enumerate(class_names)),
            label2id={name: number for number, name in enumerate(class_names)},
            **sizes,
        )
        model = AutoModelForImageClassification.from_config(config)
    except Exception as error:  # of every kind, as what is wrong with sizes may be
        raise ConfigError(f"There is no {architecture} with {sizes} ({reason(error)}); give other sizes.") from error
    image_processor = ViTImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.286] * 3, image_std=[0.353] * 3
    )
    return model, image_processor


def build_dataset(pool, class_ids, augment: bool):
    """A torch data set of whole batches over an `ImagePool`; labels become 0, 1, … in the order of `class_ids`."""
    import torch

    class TensorImages(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.labels = torch.searchsorted(class_ids, pool.labels)
            # Shifts need a margin; it repeats the border, which is background.
            self.images = torch.nn.functional.pad(pool.pixel_values, (2,) * 4, "replicate") if augment else None

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index):
            return {key: value[0] for key, value in self.__getitems__([index]).items()}

        def __getitems__(self, indices):
            labels = self.labels[indices]
            if self.images is None:
                return {"pixel_values": pool.pixel_values[indices], "labels": labels}
            height, width = pool.pixel_values.shape[2:]
            count = len(indices)
            rows = torch.randint(0, 5, (count, 1, 1)) + torch.arange(height)[:, None]
            columns = torch.arange(width).expand(count, 1, width)
            columns = torch.where(torch.rand(count, 1, 1) < 0.5, columns, width - 1 - columns)
            columns = columns + torch.randint(0, 5, (count, 1, 1))
            batch = torch.as_tensor(indices)[:, None, None]
            # Indices around a slice put the channels last.
            return {"pixel_values": self.images[batch, :, rows, columns].permute(0, 3, 1, 2), "labels": labels}

    return TensorImages()


def write_card(
    folder: Path, *, argv: list[str], architecture: str, data: DataArguments, args, class_names, parameters, metrics
) -> None:
    """Writes the README.md of the model's repository."""
    import torch
    import transformers
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    dataset = Path(data.dataset_name).name if Path(data.dataset_name).exists() else data.dataset_name
    pretty_name = "Fashion-MNIST" if dataset == "fashion_mnist" else dataset
    network = NAMES[architecture]
    changes = ", shifted and flipped at random" if data.augment else ""
    schedule = f"{args.lr_scheduler_type.value} after {args.warmup_steps:g} steps of warm-up"
    torch_version = torch.__version__.split("+")[0]
    card_data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["image-classification", architecture],
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

A small {network} ({parameters:,} parameters, {IMAGE_SIZE}x{IMAGE_SIZE} RGB images) that tells apart the classes
{", ".join(class_names)} of {pretty_name}. It is a base model for meta-training learned optimizers
on tasks that tests and demonstrations can afford; it is of little use by itself.

| data | split | accuracy | loss |
|---|---|---|---|
| {pretty_name} | `{data.test_split}` | {metrics["eval_accuracy"]:.4f} | {metrics["eval_loss"]:.4f} |

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

The weights are under the Apache 2.0 licence. Fashion-MNIST is Copyright 2017 Zalando SE, MIT licence.
"""
    ModelCard(f"---\n{card_data.to_yaml()}\n---\n{text}").save(folder / "README.md")


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines and shows defaults."""


def make_parser(architecture: str = "resnet"):
    """The command line's parser, with the defaults of an architecture."""
    from transformers import TrainingArguments

    parser = settings_parser(
        (ModelArguments, DataArguments, TrainingArguments), description=__doc__, formatter_class=HelpFormatter
    )
    parser.set_defaults(**COMMON_DEFAULTS, **DEFAULTS[architecture])
    return parser


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains, measures and saves the model; returns the measured metrics."""
    from transformers import Trainer, set_seed

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    argv = sys.argv[1:] if argv is None else argv
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--architecture", choices=DEFAULTS, default="resnet")
    parser = make_parser(first.parse_known_args(argv)[0].architecture)
    try:
        model_args, data_args, training_args = parser.parse_dict(vars(parser.parse_args(argv)))
    except ValueError as error:  # what TrainingArguments does not allow
        parser.error(str(error))
    overrides = read_overrides(model_args)
    folder = Path(training_args.output_dir)
    write_files(folder, {})  # found out now that it cannot be written, not after training
    if model_args.smoke:
        training_args.max_steps, training_args.warmup_steps, training_args.logging_steps = 4, 1, 1
    set_seed(training_args.seed)

    _, image_processor = build_model(model_args.architecture, ["unused"], overrides)
    train_pool, test_pool = (
        load_image_pool(
            data_args.dataset_name,
            image_processor,
            split=split,
            max_images=512 if model_args.smoke else None,
            max_memory=None,  # the augmentation wants them all in one tensor
        )
        for split in (data_args.train_split, data_args.test_split)
    )
    class_ids = train_pool.labels.unique()
    class_names = [train_pool.class_names[number] for number in class_ids]
    set_seed(training_args.seed)
    model, _ = build_model(model_args.architecture, class_names, overrides)
    # ResNet takes the Trainer's loss arguments but ignores them, which would inflate its loss under accumulation.
    model.accepts_loss_kwargs = False
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=build_dataset(train_pool, class_ids, data_args.augment),
        eval_dataset=build_dataset(test_pool, class_ids, augment=False),
        data_collator=lambda batch: batch,
        compute_metrics=lambda prediction: {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        },
    )
    trainer.train()
    metrics = trainer.evaluate()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info("%d parameters, accuracy %.4f on %s", parameters, metrics["eval_accuracy"], data_args.test_split)

    if trainer.is_world_process_zero():
        model.save_pretrained(folder)
        image_processor.save_pretrained(folder)
        write_card(
            folder,
            argv=argv,
            architecture=model_args.architecture,
            data=data_args,
            args=training_args,
            class_names=class_names,
            parameters=parameters,
            metrics=metrics,
        )
    return metrics


if __name__ == "__main__":
    run_script(main)
