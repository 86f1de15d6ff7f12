"""The app as the Hub runs it: a process of its own, in the folder that the bundle makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipes.space.bundle import bundle


@contextmanager
def serve(folder: Path, timeout: float = 180.0) -> Iterator[str]:
    """Yields the address of a running app."""
    bundle(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_TEMP_DIR": str(folder / "tmp")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(folder.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env={**environment, **own}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + timeout
            while not _answers(url):
                log.seek(0)
                assert process.poll() is None and time.monotonic() < deadline, log.read()
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
