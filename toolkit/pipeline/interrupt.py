"""Ctrl-C and SIGTERM: save and leave within seconds; a second signal does not wait."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Self

# A loop that has not come to a safe point after this many seconds is left where it is: the last checkpoint stands.
GRACE_SECONDS = 2.5


class Interrupt:
    """A context manager that turns signals into KeyboardInterrupt (SIGINT) and SystemExit(143) (SIGTERM).

    They are raised at once, except inside `waiting`: there the loop asks `check` whenever its state is whole.
    Outside the main thread signals are left to whoever owns it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._arrived)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._overdue)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self, waits: bool = True) -> Iterator[None]:
        """Inside, signals wait for `check`; `waiting(False)` inside that makes a part abortable again."""
        before, self._waits = self._waits, waits
        try:
            if not waits:
                self.check()
            yield
        finally:
            self._waits = before

    def check(self) -> None:
        """Leave now if a signal has come."""
        if self.signal is not None:
            raise KeyboardInterrupt if self.signal == signal.SIGINT else SystemExit(128 + self.signal)

    def _arrived(self, number: int, _: object) -> None:
        again, self.signal = self.signal is not None, number
        if again or not self._waits:
            self.check()
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _overdue(self, *_: object) -> None:
        self.check()
