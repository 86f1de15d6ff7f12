"""One version everywhere, and the floors in pyproject.toml are those that the workflow tests."""

import re
from pathlib import Path

from packaging.version import Version


ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_lowest_pins_are_the_floors_of_pyproject():
    (dependencies,) = re.findall(r"^dependencies = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    floors = re.findall(r'^    "([\w-]+)>=([\d.]+)', dependencies, re.MULTILINE)
    floors += re.findall(r'^peft = \["(peft)>=([\d.]+)"\]', PYPROJECT, re.MULTILINE)
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests/lowest.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: Version(floor) for name, floor in floors} == {name: Version(pin) for name, pin in pins}


def test_the_lowest_python_is_the_floor_of_pyproject():
    (floor,) = re.findall(r'^requires-python = ">=([\d.]+)"$', PYPROJECT, re.MULTILINE)
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert f'python-version: "{floor}"' in workflow


def test_citation_and_changelog_are_of_this_version():
    (version,) = re.findall(r'^version = "(.*)"$', PYPROJECT, re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
