import json

import pytest
import torch

from hf_l3rs.errors import CheckpointError
from hf_l3rs.evaluation.manifest import (
    MANIFEST_NAME,
    differences,
    fingerprint,
    plain,
    read_manifest,
    write_manifest,
)
from hf_l3rs.tasks.distribution import TaskSource
from hf_l3rs.tasks.pools import ImagePool
from tests.meta.problems import make_model, make_pool, make_tasks


def test_the_fingerprint_is_of_images_labels_and_weights():
    same = fingerprint(make_tasks(), 7)
    assert same == fingerprint(make_tasks(), 7)
    pool = make_pool()
    darker = ImagePool(pool.pixel_values - 1, *pool[1:])
    relabelled = ImagePool(pool.pixel_values, pool.labels.roll(1), pool.class_names)
    others = [
        fingerprint(make_tasks(), 8),
        fingerprint(make_tasks(model=make_model(seed=1)), 7),
        fingerprint(make_tasks(seed=1), 7),
        *(
            fingerprint(make_tasks(sources=[TaskSource("blobs", *pools)]), 7)
            for pools in ((darker, make_pool(seed=1)), (relabelled, make_pool(seed=1)), (pool, darker))
        ),
    ]
    assert same == fingerprint(make_tasks(sources=[TaskSource("another name", pool, make_pool(seed=1))]), 7)
    assert len({same, *others}) == 1 + len(others)
    assert fingerprint(make_tasks(model=make_model().to(torch.bfloat16)), 7) != same


def test_differences_are_named():
    old = {"a": 1, "b": {"c": [1, 2]}, "d": [{"path": "x", "n": None}]}
    assert differences(old, old) == []
    new = {"a": 1, "b": {"c": [1, 3]}, "d": [{"path": "y", "n": None}], "e": True}
    assert differences(old, new) == [
        "b.c was [1, 2], now [1, 3]",
        'd[0].path was "x", now "y"',
        "e was null, now true",
    ]
    assert plain({"betas": (0.9, 0.99), "kind": torch.float32}) == {"betas": [0.9, 0.99], "kind": "torch.float32"}


def test_each_file_has_its_entry(tmp_path):
    assert read_manifest(tmp_path) == {}
    write_manifest(tmp_path, "search.csv", {"settings": {"seed": 1}})
    write_manifest(tmp_path, "rows.csv", {"settings": {"seed": 2}})
    sections = read_manifest(tmp_path)
    assert {name: section["settings"]["seed"] for name, section in sections.items()} == {
        "search.csv": 1,
        "rows.csv": 2,
    }
    assert sections["search.csv"]["hash"] != sections["rows.csv"]["hash"]
    before = (tmp_path / MANIFEST_NAME).stat().st_mtime_ns
    write_manifest(tmp_path, "rows.csv", {"settings": {"seed": 2}})
    assert (tmp_path / MANIFEST_NAME).stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"3", b'{"rows.csv": 3}', b'{"rows.csv": {}}', b"\xff", None])
def test_a_damaged_or_edited_manifest_is_refused_in_one_sentence(content, tmp_path):
    write_manifest(tmp_path, "rows.csv", {"settings": {"seed": 1}})
    file = tmp_path / MANIFEST_NAME
    if content is None:
        sections = json.loads(file.read_text())
        sections["rows.csv"]["settings"]["seed"] = 2
        content = json.dumps(sections).encode()
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not say what the rows beside it were measured with") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)
