"""One stage of a run as the terminal sees it: how far, how fast, how long still."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from toolkit.console.words import duration

SAMPLE_SECONDS = 0.5  # between two looks at the speed
SAMPLES = 120  # that the speed is taken over: a minute


@dataclass
class Stage:
    """What is known of one stage, and how fast it goes."""

    name: str
    state: str = "waiting"
    result: str = ""
    seconds: float = 0.0
    total: int | None = None
    unit: str = "steps"
    started: float | None = None
    done: int = 0
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def start(self, total: int | None, unit: str, now: float) -> None:
        """The stage begins at `now`, on the caller's clock."""
        self.state, self.total, self.unit, self.started, self.done = "running", total, unit, now, 0
        self.samples.clear()

    def advance(self, done: int, now: float) -> None:
        """`done` units are finished at `now`."""
        self.done = done
        # The first sample is taken here and not at the start: a resumed stage begins in the middle.
        if not self.samples or not 0 <= now - self.samples[-1][0] < SAMPLE_SECONDS:
            self.samples.append((now, done))

    def speed(self) -> float | None:
        """Units per second over the last minute or so; None until it is known."""
        samples = list(self.samples)  # the terminal's thread asks while the run adds
        if len(samples) < 2:
            return None
        (t0, d0), (t1, d1) = samples[0], samples[-1]
        return (d1 - d0) / (t1 - t0) if t1 > t0 and d1 > d0 else None

    def percent(self) -> str:
        """Share finished; the count where there is no total."""
        if not self.total:
            return f"{self.done:,} {self.unit}"
        return f"{min(100, 100 * self.done // self.total)} %"

    def left(self) -> str:
        """Time left; nothing until the speed is known."""
        speed = self.speed()
        return f"{duration(max(0, self.total - self.done) / speed)} left" if speed and self.total else ""

    def position(self) -> str:
        """Where the stage is, in words."""
        of = f" of {self.total:,} {self.unit}" if self.total else ""
        speed = f", {speed:,.0f} {self.unit}/s" if (speed := self.speed()) else ""
        return ", ".join(filter(None, [f"{self.percent()}{of}{speed}", self.left()]))
