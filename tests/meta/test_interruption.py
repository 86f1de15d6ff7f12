"""A request to end is heard once; outside, signals are what they were."""

import os
import signal
import threading

import pytest

from hf_l3rs.meta.meta_trainer import SIGNALS, Interruption


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_is_a_request_and_the_second_ends(number):
    before, interruption, ended = signal.getsignal(number), Interruption(), []
    signal.signal(number, lambda *args: ended.append(args))
    try:
        with interruption.on_signals():
            assert not interruption.requested
            os.kill(os.getpid(), number)
            assert interruption.requested and not ended
            os.kill(os.getpid(), number)
            assert ended
        os.kill(os.getpid(), number)
        assert len(ended) == 2, "the handler before was not restored"
    finally:
        signal.signal(number, before)


def test_other_threads_leave_signals_alone():
    handlers, seen = [signal.getsignal(number) for number in SIGNALS], []

    def enter():
        with Interruption().on_signals():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == handlers
