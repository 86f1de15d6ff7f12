"""Two splits have images in common unless their names prove that they have not; datasets itself is the judge."""

import datasets
import pytest

from hf_l3rs.tasks.seen_data import splits_overlap


DISJOINT = [
    ("train", "test"),
    ("train", "train.clean"),
    ("train[:50%]", "train[50%:]"),
    ("train[10%:20%]", "train[20%:30%]"),
    ("train[:1_0]", "train[10:]"),
    ("train[:-10]", "train[-10:]"),
    ("train[-20:-10]", "train[-10:]"),
    ("train[:10%]+test", "train[10%:20%] + other"),
    ("train[:33%](pct1_dropremainder)", "train[33%:](pct1_dropremainder)"),
]
OVERLAPPING = [
    ("train", "train"),
    ("train", "train[:1]"),
    ("train[:]", "train[5:]"),
    ("train[:60%]", "train[40%:]"),
    ("train[:50%]", "train[50:]"),  # units differ: unknown without the size
    ("train[:50]", "train[-50:]"),
    ("train[50:]", "train[:-50]"),
    (
        "train[:50%](pct1_dropremainder)",
        "train[50%:]",
    ),  # of 150 images, the first ends at 50 and the other starts at 75
    ("test+train", "train[3:4]"),
    ("all", "train"),
    ("train[:10]", "all"),
    ("train[", "train"),
]


@pytest.mark.parametrize(("one", "other"), DISJOINT)
def test_provably_disjoint(one, other):
    assert not splits_overlap(one, other) and not splits_overlap(other, one)


@pytest.mark.parametrize(("one", "other"), OVERLAPPING)
def test_everything_else_overlaps(one, other):
    assert splits_overlap(one, other) and splits_overlap(other, one)


@pytest.mark.parametrize("size", [113, 150, 1237])
def test_what_is_called_disjoint_is_for_datasets(size):
    def rows(split):
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: size for name in names})
        return {(part.splitname, row) for part in parts for row in range(part.from_, part.to)}

    names = ("train", "test", "other", "train.clean")
    for one, other in DISJOINT:
        assert not rows(one) & rows(other), (one, other)
