"""Where a name leads: a folder, a released L3RS or the Hub; a mistyped folder is said to be one, at once."""

import pytest
from huggingface_hub import constants

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub import artifact
from hf_l3rs.hub.artifact import save_network
from hf_l3rs.hub.connection import hub_answers, is_repo_id, refuse_missing_path
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


@pytest.mark.parametrize(
    "name", ["", " ", "./absent", "../absent", "/absent", "~/absent", "a/b/c", "a/", "s3://a/b", "a b", "C:\\x", "x\n"]
)
def test_what_is_no_hub_id_is_a_path(name):
    with pytest.raises(ArtifactError, match="neither a local folder nor a Hub id") as error:
        refuse_missing_path(name)
    assert not is_repo_id(name)
    assert_one_sentence(error, "check it for a typo")


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


def test_whether_the_hub_answers(hub, monkeypatch):
    """What it answers does not matter, and it has the time that the user's setting gives it."""
    assert hub_answers("nobody/nothing") and hub_answers("nobody/nothing", "dataset")
    hub.delay = 0.5
    assert hub_answers("nobody/nothing")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    assert not hub_answers("nobody/nothing")
