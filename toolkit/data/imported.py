"""Recorded data as a file has it, with where it comes from and what is wrong with it; `checked` makes it usable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toolkit.data.finding import Finding, errors
from toolkit.types import Array, BoolArray, Episodes, FloatArray, IntArray, Json, ToolkitError

ACTION_SLACK = 1e-4  # outside the bounds by rounding is clipped, by more is an error


class Dropped(NamedTuple):
    """What of a file is not in the episodes."""

    number: int
    what: str
    why: str


@dataclass(frozen=True)
class Source:
    """Where episodes come from, for people and for the audit; nothing is ever built from it."""

    path: Path
    format: str
    ends: dict[str, int]  # episodes by how the file says they end: terminated, truncated, both, cut (no flag)
    numbers: IntArray  # (E,) what the file calls each episode
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    env_id: str | None = None
    versions: dict[str, str] = field(default_factory=dict)  # package to version it was recorded with
    max_steps: int | None = None  # time limit of the recorded environment
    rewarded: bool = True  # False: the file has no rewards, and zeros stand for them

    def summary(self) -> Json:
        """All of it that JSON can hold."""
        return {
            "path": str(self.path),
            "format": self.format,
            "ends": self.ends,
            "dropped": [entry._asdict() for entry in self.dropped],
            "notes": list(self.notes),
            "env_id": self.env_id,
            "versions": self.versions,
            "max_episode_steps": self.max_steps,
            "rewards": self.rewarded,
        }


def joined(sources: Sequence[Source]) -> Source:
    """The source of parts of one file, from those of the parts, in order."""
    counts: Counter[tuple[str, str]] = Counter()
    for source in sources:
        for number, what, why in source.dropped:
            counts[what, why] += number
    return replace(
        sources[0],
        ends={name: sum(source.ends[name] for source in sources) for name in sources[0].ends},
        numbers=np.concatenate([source.numbers for source in sources]),
        dropped=tuple(Dropped(number, *text) for text, number in counts.items()),
    )


@dataclass(frozen=True)
class Imported:
    """Episodes as the file has them: actions scaled by their bounds, nothing clipped and no flag added."""

    episodes: Episodes
    source: Source
    findings: tuple[Finding, ...] = ()  # met while reading; the episodes they name are left out


def scaled(action: Array, low: npt.ArrayLike = -1.0, high: npt.ArrayLike = 1.0) -> FloatArray:
    """Actions (..., A) within bounds (A,) or () as numbers within [-1, 1]; those bounds change no bit."""
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    result: FloatArray = ((action - (high + low) / 2) / ((high - low) / 2)).astype(np.float32)
    return result


def acting(starts: IntArray) -> BoolArray:
    """Which of all rows hold a transition, (R,); the last of each episode does not."""
    rows = np.ones(starts[-1], np.bool_)
    rows[starts[1:] - 1] = False
    return rows


def count_ends(episodes: Episodes) -> dict[str, int]:
    """How many episodes end how, by the flags of their last steps."""
    last = episodes.starts[1:] - 2
    terminated, truncated = episodes.terminated[last], episodes.truncated[last]
    counts = {
        "terminated": terminated & ~truncated,
        "truncated": truncated & ~terminated,
        "both": terminated & truncated,
        "cut": ~terminated & ~truncated,
    }
    return {name: int(flags.sum()) for name, flags in counts.items()}


def checked(imported: Imported) -> Episodes:
    """Episodes to learn from: actions clipped to [-1, 1], an end on every last step.

    Raises ToolkitError that names the file, the place and what was expected, for whatever makes them unusable.
    """
    found = errors([*imported.findings, *essential(imported)])
    if found:
        more = f" (and {len(found) - 1} more: see `toolkit data validate`)" if len(found) > 1 else ""
        raise ToolkitError(f"{imported.source.path}: {found[0]}{more}")
    episodes = imported.episodes
    last, truncated = episodes.starts[1:] - 2, episodes.truncated.copy()
    truncated[last] = ~episodes.terminated[last]
    return replace(episodes, action=np.clip(episodes.action, -1, 1), truncated=truncated)


def essential(imported: Imported) -> list[Finding]:
    """The rules without which nothing can be learned from the numbers."""
    episodes = imported.episodes
    found = []
    for name in ("obs", "achieved", "desired", "action", "reward"):
        rows = getattr(episodes, name).reshape(len(episodes.reward), -1)
        finite = np.isfinite(rows.sum(axis=1, dtype=np.float64)) if rows.shape[1] else np.isfinite(episodes.reward)
        if not finite.all():
            message = f"expected finite numbers, got NaN or infinity in {_WORDS[name]}"
            found += at_rows(imported, ~finite & ~np.isfinite(rows).all(axis=1), "not-finite", message)
    early = episodes.terminated | episodes.truncated
    early[episodes.starts[1:] - 2] = False
    found += at_rows(imported, early, "early-end", "terminated or truncated before the episode's last transition")
    size = np.abs(episodes.action).max(axis=1, initial=0)
    outside: BoolArray = (size > 1 + ACTION_SLACK) & np.isfinite(size)
    message = (
        "an action outside the bounds of the action space; if a file does not say these, --task takes the simulator's, "
        "and `toolkit data convert --action-bounds LOW,HIGH` any"
    )
    return found + at_rows(imported, outside, "action-bounds", message)


def at_rows(imported: Imported, bad: BoolArray, rule: str, message: str) -> list[Finding]:
    """A finding for each episode with rows marked in `bad` (R,), at the first of them."""
    rows = np.flatnonzero(bad)
    if not len(rows):
        return []
    starts = imported.episodes.starts
    which, first = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_index=True)
    return [
        Finding(rule, message, int(imported.source.numbers[e]), int(rows[at] - starts[e]))
        for e, at in zip(which.tolist(), first.tolist(), strict=True)
    ]


_WORDS = {
    "obs": "observations",
    "achieved": "achieved goals",
    "desired": "desired goals",
    "action": "actions",
    "reward": "rewards",
}
