"""Signals: at once where nothing is lost, at the next whole state elsewhere, and never later than the grace."""
# ruff: noqa: PT012 (what raises is a signal, and some lines send it)

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from toolkit.pipeline import interrupt as module
from toolkit.pipeline.interrupt import Interrupt


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.001)  # the handler runs between two instructions


def test_at_once_by_default() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupt():
        send(signal.SIGINT)
    with pytest.raises(SystemExit) as caught, Interrupt():
        send(signal.SIGTERM)
    assert caught.value.code == 143


def test_waits_for_a_whole_state_and_a_second_signal_does_not() -> None:
    with pytest.raises(SystemExit) as caught, Interrupt() as interrupt, interrupt.waiting():
        send(signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        interrupt.check()
    assert caught.value.code == 143
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt, interrupt.waiting():
        send(signal.SIGTERM)
        send(signal.SIGINT)


def test_a_part_inside_can_be_left_at_once() -> None:
    with Interrupt() as interrupt, interrupt.waiting():
        with pytest.raises(KeyboardInterrupt), interrupt.waiting(False):
            send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupt.waiting(False):
            raise AssertionError("a signal that came before is not forgotten")


def test_a_loop_that_does_not_come_to_a_whole_state_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt, interrupt.waiting():
        send(signal.SIGINT)
        time.sleep(5)
    assert time.monotonic() - begun < 2


def test_handlers_and_timers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt, interrupt.waiting():
        send(signal.SIGINT)
        interrupt.check()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
