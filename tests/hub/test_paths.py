"""A mistyped folder is said to be one, at once; a Hub id is left to the Hub."""

import pytest

from hf_l3rs import L3RS
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub import pretrained
from hf_l3rs.hub.connection import refuse_missing_path
from hf_l3rs.tasks.model import load_image_classifier
from tests.hub.examples import assert_one_sentence


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("l3rs-resnet-tiny", "l3rs-vit-tiny", "else"):
        (tmp_path / "cards" / name).mkdir(parents=True)


@pytest.mark.parametrize("name", ["./absent", "../absent", "/absent", "~/absent", "a/b/c", ".\\absent"])
def test_what_is_no_hub_id_is_a_path(name):
    with pytest.raises(ArtifactError, match="neither a local folder nor a Hub id") as error:
        refuse_missing_path(name)
    assert_one_sentence(error, "check it for a typo")


@pytest.mark.parametrize("name", ["cards/l3rs-resnet-tyni", "./cards/l3rs-resnet-tyni"])
def test_similar_folders_are_named_and_the_hub_is_not_asked(name, monkeypatch):
    monkeypatch.setattr(pretrained, "download", lambda *args, **kwargs: pytest.fail("asked the Hub"))
    for load in (L3RS.from_pretrained, load_image_classifier):
        with pytest.raises(ArtifactError, match=r"similar: 'cards/l3rs-resnet-tiny'") as error:
            load(name)
        assert_one_sentence(error)
        assert "else" not in str(error.value)


@pytest.mark.parametrize("name", ["user/name", "name", "cards", "cards/else"])
def test_what_exists_or_may_be_a_hub_id_passes(name):
    refuse_missing_path(name)
