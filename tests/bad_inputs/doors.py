"""The doors that a user comes in by, and what must be said at each of them about a bad input."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from transformers import ViTImageProcessorPil

from hf_l3rs import L3RSArtifact, L3RSConfig, L3RSError, L3RSNetwork
from hf_l3rs.cli import main as cli
from hf_l3rs.optimizer.layers import describe_trainable_layers
from recipes import meta_train as meta_train_recipe
from tests.hub.examples import make_network
from tests.tiny import tiny_resnet


ROOT = Path(__file__).parents[2]
REMOVE = object()
# A sentence says what to do: an imperative, or what is allowed.
_REMEDY = re.compile(
    r"\b(must|needs?|pass|change|choose|use|write|check|load|build|call|start|install|upgrade|give|lower|name|save|download|"
    r"measure|remove|repair|correct|move|add|leave|set|free|unfreeze|unset|freeze|log in|wait|reads|restore|resume|"
    r"accept|run|show|launch|see that|it has)\b"
)


class Place:
    """
    What the rows find: whole things that are shared, in `<l3rs>`, `<model>`, `<images>` and `<parquet>`, which no row
    changes, and an empty folder of the row's own, `<own>`.
    """

    def __init__(self, shared: Path, own: Path) -> None:
        self.shared, self.own = shared, own

    def __truediv__(self, name: str) -> Path:
        return self.own / name

    def fill(self, value: Any) -> Any:
        """Puts paths into a nested value."""
        if isinstance(value, str):
            value = value.replace("<own>", str(self.own))
            return re.sub(r"<(\w+)>", lambda match: str(self.shared / match[1]), value)
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        if isinstance(value, dict):
            return {key: self.fill(each) for key, each in value.items() if each is not REMOVE}
        return value

    def copy(self, name: str) -> Path:
        """Returns a copy of a shared folder, to be damaged."""
        return shutil.copytree(self.shared / name, self.own / name)


Door = Callable[[Place, pytest.CaptureFixture, pytest.MonkeyPatch], str]
Prepare = Callable[[Place], Any]


def file(name: str, data: bytes | str = b"") -> Prepare:
    """Prepares a file of the row's own."""

    def prepare(place: Place) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return prepare


def furnish(shared: Path) -> None:
    """Makes what the rows share."""
    L3RSArtifact(make_network()).save_pretrained(shared / "l3rs")
    model = tiny_resnet()
    model.save_pretrained(shared / "model")
    fitting = L3RSConfig(tuple(describe_trainable_layers(model)))
    L3RSArtifact(L3RSNetwork(fitting)).save_pretrained(shared / "fitting")
    ViTImageProcessorPil(size={"height": 4, "width": 4}).save_pretrained(shared / "model")
    labels = [number % 3 for number in range(60)]
    pixels = np.random.default_rng(0).integers(0, 255, (60, 4, 4, 3), np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["ant", "bee", "cow"])})
    columns = {"image": list(pixels), "label": labels}
    (shared / "images").mkdir()
    Dataset.from_dict(columns, features=features).to_parquet(shared / "images" / "train.parquet")
    shutil.copy(shared / "images" / "train.parquet", shared / "file.parquet")
    run = Place(shared, shared).fill({**_SETTINGS, "output_dir": str(shared / "run"), "checkpoint_interval": 1})
    (shared / "run.yaml").write_text(yaml.safe_dump(run))
    meta_train_recipe.main([str(shared / "run.yaml")])


class Row(NamedTuple):
    """A bad input: what is wrong, how it comes in, and what is said of it, as a pattern."""

    name: str
    door: Door
    says: str


def python(call: Callable[[Place], Any]) -> Door:
    """The Python API: an [`L3RSError`]."""

    def enter(place: Place, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
        with pytest.raises(L3RSError) as error:
            call(place)
        return str(error.value)

    return enter


def command(*argv: str, prepare: Prepare = lambda place: None) -> Door:
    """The command `hf-l3rs`: exit status 1 and one line."""

    def enter(place: Place, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
        prepare(place)
        status = cli.main([place.fill(each) for each in argv])
        out, err = capsys.readouterr()
        assert (status, out) == (1, "")
        assert err.startswith("hf-l3rs: ") and err.endswith("\n")
        return err.removeprefix("hf-l3rs: ").removesuffix("\n")

    return enter


def usage(program: Callable[[list[str]], Any], *argv: str) -> Door:
    """What argparse refuses: exit status 2, the usage, and one line."""

    def enter(place: Place, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
        with pytest.raises(SystemExit) as exit:
            program([place.fill(each) for each in argv])
        out, err = capsys.readouterr()
        assert (exit.value.code, out) == (2, "")
        shown, _, said = err.rpartition(": error: ")
        assert shown.startswith("usage: ") and said.endswith("\n")
        return said.removesuffix("\n").rstrip(".") + "; choose what the usage shows."

    return enter


def recipe(name: str, *argv: str, prepare: Prepare = lambda place: None) -> Door:
    """A recipe as the shell runs it: exit status 1 and one line."""

    def enter(place: Place, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
        prepare(place)
        path = ROOT / "recipes" / f"{name}.py"
        monkeypatch.setattr("sys.argv", [str(path), *map(place.fill, argv)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(path), run_name="__main__")
        _, err = capsys.readouterr()
        assert exit.value.code == 1 and err.startswith("error: ") and err.endswith("\n")
        return err.removeprefix("error: ").removesuffix("\n")

    return enter


_SETTINGS = {
    "base_model": "<model>",
    "datasets": ["<images>"],
    "num_classes": 2,
    "batch_size": 2,
    "evaluation_size": 4,
    "min_steps": 1,
    "num_validation_tasks": 0,
    "num_generations": 1,
    "num_pairs": 1,
    "output_dir": "<own>/out",
}
_EVALUATION = {
    **{key: _SETTINGS[key] for key in ("base_model", "datasets", "num_classes", "batch_size", "evaluation_size")},
    "l3rs": "<fitting>",
    "horizons": [1],
    "num_tasks": 1,
    "output_dir": "<own>/out",
}


def with_settings(
    name: str, changes: dict[str, Any], *argv: str, prepare: Prepare = lambda place: None, base: Any = _SETTINGS
) -> Door:
    """A command with a settings file, which would run but for `changes`."""

    def write(place: Place) -> None:
        (place / "settings.yaml").write_text(yaml.safe_dump(place.fill({**base, **changes})))
        prepare(place)

    return command(name, "<own>/settings.yaml", *argv, prepare=write)


def meta_train(*argv: str, prepare: Prepare = lambda place: None, **changes: Any) -> Door:
    return with_settings("meta-train", changes, *argv, prepare=prepare)


def meta_evaluate(prepare: Prepare = lambda place: None, **changes: Any) -> Door:
    return with_settings("evaluate", changes, prepare=prepare, base=_EVALUATION)


def text_settings(text: str | bytes) -> Door:
    """`hf-l3rs meta-train` with a settings file of this content."""
    return command("meta-train", "<own>/settings.yaml", prepare=file("settings.yaml", text))


def check_sentence(said: str, pattern: str) -> None:
    """What, got, allowed, fix: one line that ends, is not endless, and names a way out."""
    assert re.search(pattern, said), said
    assert "\n" not in said and said.replace("\0", "").isprintable(), said  # a path is shown as it is
    assert said.endswith("."), said
    assert len(re.sub(r"(/[\w.-]+)+/|a{99,}", "", said)) <= 400, said  # paths are as long as they are
    assert _REMEDY.search(said), said
    assert "Traceback" not in said and "Error:" not in said, said
    assert not re.search(r"<class |<function |object at 0x", said), said


def damage_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Changes a file of safetensors."""
    import safetensors.torch

    tensors = safetensors.torch.load_file(file)
    change(tensors)
    safetensors.torch.save_file(tensors, file)
