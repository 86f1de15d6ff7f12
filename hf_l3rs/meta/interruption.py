"""Ending a run on request, after the generation at hand."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """
    Whether somebody asked the run to end.

    Attributes:
        requested (`bool`): Whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Inside, the first SIGINT or SIGTERM is a request and a second one ends the process, as it would outside."""
        if threading.current_thread() is not threading.main_thread():  # only there does Python let handlers be set
            yield
            return
        self._previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
        try:
            for number in SIGNALS:
                signal.signal(number, self._request)
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self._previous[signal.Signals(number)])
        logger.warning("Stopping after this generation; the checkpoint will resume from there.")
