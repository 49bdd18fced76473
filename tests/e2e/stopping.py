"""Asks the process to stop in the middle of something."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any


def asked_to_stop(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; its second call is met by SIGTERM."""
    calls = count(1)

    def called(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    return called
