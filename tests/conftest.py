"""Settings that every test runs under. They must stand before anything imports torch or a Hugging Face library."""

import os
import tempfile

import pytest


# No test may reach the network: nothing listens on the discard port, and the Hub is off unless a test turns it on.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"
# Neither the login nor the cache of who runs the tests. The folder goes when the process ends.
_home = tempfile.TemporaryDirectory(prefix="hf_l3rs_tests_", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _home.name
os.environ.pop("HF_TOKEN", None)
# Small models are fastest on one thread, and sums come out the same everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.loopback_hub"]


@pytest.fixture
def seen_losses(monkeypatch):
    """The losses that the optimizer's features got, one a step."""
    from hf_l3rs.optimizer.loss import LossObserver

    losses = []
    take = LossObserver.take

    def spy(self, device):
        loss = take(self, device)
        losses.append(None if loss is None else float(loss))
        return loss

    monkeypatch.setattr(LossObserver, "take", spy)
    return losses
