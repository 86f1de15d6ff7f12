"""Where a name leads: a folder, a released L3RS or the Hub; a mistyped folder is said to be one, at once."""

import pytest

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub import artifact
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.tasks.model import load_image_classifier
from tests.hub.examples import assert_one_sentence, make_network


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("l3rs-resnet-tiny", "l3rs-vit-tiny", "else"):
        (tmp_path / "cards" / name).mkdir(parents=True)


@pytest.fixture
def without_hub(monkeypatch):
    monkeypatch.setattr(artifact, "hf_hub_download", lambda *args, **kwargs: pytest.fail("asked the Hub"))


@pytest.mark.parametrize("name", ["cards/l3rs-resnet-tyni", "./cards/l3rs-resnet-tyni"])
def test_similar_folders_are_named_and_the_hub_is_not_asked(name, without_hub):
    for load in (L3RS.from_pretrained, load_image_classifier):
        with pytest.raises(ArtifactError, match=r"similar: 'cards/l3rs-resnet-tiny'") as error:
            load(name)
        assert_one_sentence(error)
        assert "else" not in str(error.value)


def test_a_bare_name_is_a_released_one(without_hub):
    assert L3RS.from_pretrained("l3rs-resnet-tiny-fashion").network.fingerprint() == "89e35ee4db47f56c"
    for name, options in (("l3rs-resnet", {}), ("l3rs-resnet-tiny-fashion", {"revision": "v1"})):
        with pytest.raises(ArtifactError, match="l3rs-resnet-tiny-fashion, l3rs-.* without revision") as error:
            L3RS.from_pretrained(name, **options)
        assert_one_sentence(error, f"'{name}'")


def test_a_folder_comes_before_the_released_one_of_its_name(tmp_path):
    save_network(make_network(), tmp_path / "l3rs-resnet-tiny-fashion")
    assert L3RS.from_pretrained("l3rs-resnet-tiny-fashion").network.fingerprint() == make_network().fingerprint()
