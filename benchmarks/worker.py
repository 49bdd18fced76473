"""A measured program in a process of its own: it sets up once, then runs for some seconds whenever it is asked.

Needs nothing but the standard library, since the peers' environments run it too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

# What every program measured here works on.
OBS, ACTION, BATCH, HIDDEN, ROWS, EPISODE, GAMMA = 29, 8, 256, (256, 256), 1_000_000, 1000, 0.99

Run = Callable[[], float]  # does some work, returns how many units of it


def serve(
    workloads: dict[str, Callable[[], Run]], packages: tuple[str, ...], settle: Callable[[], None] = lambda: None
) -> None:
    """Be the other side of `Worker`: the name of the workload is the only argument.

    `settle` waits for what a device has yet to do.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print as they like
    run = workloads[sys.argv[1]]()
    run()  # compiles, fills caches
    settle()
    print(json.dumps({package: version(package) for package in packages}), file=answers, flush=True)
    for line in sys.stdin:
        units, begin, end = 0.0, time.perf_counter(), time.perf_counter() + float(line)
        while time.perf_counter() < end:
            units += run()
        settle()
        print(units / (time.perf_counter() - begin), file=answers, flush=True)


class Worker:
    """A workload in its own process. `versions` says what it runs on."""

    def __init__(self, python: Path, script: str, workload: str) -> None:
        command = [str(python), str(Path(__file__).with_name(script)), workload]
        # what libraries say, shown if something goes wrong
        self._chatter: Any = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._chatter, text=True
        )
        self.workload = workload
        self.versions: dict[str, str] = self._answer()

    def rate(self, seconds: float) -> float:
        """Units per second over the next `seconds`."""
        print(seconds, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            self._chatter.seek(0)
            raise SystemExit(f"{self._chatter.read()}\n{self.workload}: ended with status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.stdin.close()
        if error is not None:
            self._process.kill()
        self._process.wait()
        self._chatter.close()
