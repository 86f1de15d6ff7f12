"""Every recipe explains itself: `--help` renders (a bare % would break it), and says what it does."""

import importlib
from pathlib import Path

import pytest


RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(".".join(path.relative_to(RECIPES.parent).with_suffix("").parts) for path in RECIPES.glob("*.py"))


def test_all_recipes_are_found():
    assert {"recipes.demo", "recipes.meta_train", "recipes.evaluate", "recipes.pretrain"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_renders(name, monkeypatch, capsys):
    recipe = importlib.import_module(name)
    monkeypatch.setattr("sys.argv", [f"{name.rpartition('.')[2]}.py", "--help"])
    with pytest.raises(SystemExit) as exit:
        recipe.main()
    assert exit.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith("usage:")
    first = recipe.__doc__.strip().split("\n")[0]
    assert " ".join(first.split()[:4]) in " ".join(output.split())
