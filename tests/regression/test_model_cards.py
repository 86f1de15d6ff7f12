"""The released artefacts: this version would write what is there, and the cards name data that others can find."""

import shutil
from pathlib import Path

import pytest

from hf_l3rs import L3RSArtifact
from hf_l3rs.hub.artifact import PICTURE_NAME, README, RELEASED, RESULTS_NAME, released_names, save_network
from hf_l3rs.hub.card import read_card
from hf_l3rs.hub.results import read_results, write_results
from recipes import release


FOLDERS = sorted((Path(__file__).parents[2] / "model_cards").iterdir())
FINGERPRINTS = {
    "l3rs-efficientnet-lite0-fashion": "0f666a878279e439",
    "l3rs-efficientnet-lite0-fashion-head": "2eb78b5f7e4e4258",
    "l3rs-efficientnet-lite0-fashion-last": "6a5913600062cd8c",
    "l3rs-mobilenet-v2-fashion": "ef826adfd4d2e3fd",
    "l3rs-mobilenet-v2-fashion-head": "abb025655d585159",
    "l3rs-mobilenet-v2-fashion-last": "0951a0462d41503d",
    "l3rs-resnet-tiny-fashion": "89e35ee4db47f56c",
    "l3rs-universal-start": "371a5d7a5b15d7b0",
    "l3rs-vision": "590b27f9c8c2f4dc",
    "l3rs-vit-tiny-fashion": "e57178e56e0f5c21",
    "l3rs-vit-tiny-fashion-lora": "bceca164d016f07f",
}


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_released_artefacts_and_their_cards_are_written_again_byte_by_byte(folder, tmp_path):
    artifact = L3RSArtifact.from_pretrained(folder.name)
    assert artifact.network.fingerprint() == FINGERPRINTS[folder.name]
    save_network(artifact.network, tmp_path / folder.name)
    if (RELEASED / folder.name / RESULTS_NAME).is_file():
        write_results(read_results(RELEASED / folder.name / RESULTS_NAME), tmp_path / folder.name / RESULTS_NAME)
    assert contents(tmp_path / folder.name) == contents(RELEASED / folder.name)
    shutil.copytree(folder, tmp_path / "cards" / folder.name)
    release.main([folder.name], tmp_path, tmp_path / "cards")
    assert contents(tmp_path / "cards" / folder.name) == contents(folder), "run recipes/release.py"
    assert {README} <= contents(folder).keys() <= {README, PICTURE_NAME}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_cards_name_no_folder_of_this_machine(folder):
    card = read_card(folder / README)
    assert card.data.datasets == ["zalando-datasets/fashion_mnist"]
    names = {each.dataset_type for each in card.data.eval_results or ()}
    assert names <= {"zalando-datasets/fashion_mnist", "digits"}
    assert card.data.base_model is None
    assert card.data.model_name in (folder.name, None) and f'from_pretrained("{folder.name}")' in card.text
    assert "outputs/" not in card.text
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    assert len(rows) <= 9 and all(line.count("|") == 7 for line in rows)


def test_all_are_here():
    assert sorted(FINGERPRINTS) == [folder.name for folder in FOLDERS] == released_names()
