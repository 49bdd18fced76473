"""What a file may leave open and its user says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from toolkit.types import Episodes, ToolkitError


@dataclass(frozen=True)
class Options:
    """Answers for `read_data`."""

    bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (-1.0, 1.0)
    """Of an action's numbers, where the file does not say, () or (A,) each; [-1, 1] inside the package is these."""
    achieved: slice | None = None
    """Columns of the observation that are the achieved goal, in a file without goals. An episode's desired one is
    then what it achieved in the end."""
    part: str | None = None
    """Name of a robomimic filter (`mask/NAME`): only its demonstrations."""
    trust_pickle: bool = False
    """Run the code in a pickle, in a process of its own."""


def columns(text: str) -> slice:
    """FIRST:END as a slice. Raises ToolkitError."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end) < 10_000):
        raise ToolkitError(f"--achieved {text}: expected FIRST:END, such as 0:2 for the first two numbers")
    return slice(int(first), int(end))


def pair(text: str) -> tuple[float, float]:
    """LOW,HIGH as numbers. Raises ToolkitError."""
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite(high - low) and low < high):
        raise ToolkitError(f"--action-bounds {text}: expected LOW,HIGH, such as -2,2")
    return low, high


def goals(episodes: Episodes, achieved: slice | None) -> Episodes:
    """The episodes with goals from their observations, where `achieved` names columns and they have none."""
    if achieved is None or episodes.achieved.shape[1]:
        return episodes
    if achieved.stop > episodes.obs.shape[1]:
        raise ToolkitError(
            f"--achieved: expected columns of {episodes.obs.shape[1]} numbers, got up to {achieved.stop}"
        )
    reached = np.ascontiguousarray(episodes.obs[:, achieved])
    return replace(
        episodes,
        achieved=reached,
        desired=np.repeat(reached[episodes.starts[1:] - 1], np.diff(episodes.starts), axis=0),
    )
