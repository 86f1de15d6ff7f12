import pytest

from hf_l3rs.hub.artifact import save_network
from tests.hub.examples import make_network


@pytest.fixture
def saved(tmp_path):
    save_network(make_network(), tmp_path / "saved")
    return tmp_path / "saved"
