"""What a file may leave open and its user says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toolkit.data.imported import Imported, scaled
from toolkit.data.importers.rows import table
from toolkit.types import Array, FloatArray, ToolkitError

BOUNDS = ("action_low", "action_high")  # (A,) what -1 and 1 stand for, in flat files that say so
_NONE: Mapping[str, Array] = {}


@dataclass(frozen=True)
class Options:
    """Answers for `read_data`."""

    bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (-1.0, 1.0)
    """Of an action's numbers, where the file does not say, () or (A,) each; [-1, 1] inside the package is these."""
    said: bool = False
    """Whether a user gave these bounds, which count in a layout that has its own too."""
    choices: int | None = None
    """How many there are, where an action is one of several: its number, from 0, or one-hot."""
    achieved: slice | None = None
    """Columns of the observation that are the achieved goal. In a file without goals an episode's desired one is then
    what it achieved in the end."""
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


def actions(array: Array, path: Path | str, options: Options, arrays: Mapping[str, Array] = _NONE) -> FloatArray:
    """Actions (N, A) within [-1, 1], choices one-hot; `arrays` may say bounds as `action_low` and `action_high`, (A,).

    Raises ToolkitError for other shapes, and for numbers that are no choices.
    """
    if options.choices is not None and array.shape[:1] == (array.size,):
        numbers = array.reshape(-1)
        if not np.isin(numbers, np.arange(options.choices)).all():
            raise ToolkitError(f"{path}: actions: expected numbers of choices, 0 to {options.choices - 1}")
        return np.eye(options.choices, dtype=np.float32)[numbers.astype(np.int64)]
    rows, (low, high) = table(array, "actions", path), options.bounds
    if own := [name for name in BOUNDS if name in arrays]:
        if len(own) == 1:
            raise ToolkitError(f"{path}: expected {' and '.join(BOUNDS)}, or neither; found {own[0]} alone")
        if not options.said:
            low, high = (arrays[name].reshape(-1) for name in BOUNDS)
    for bound in (low, high):
        if np.size(bound) not in (1, rows.shape[1]):
            raise ToolkitError(f"{path}: actions: expected {np.size(bound)} numbers, got {rows.shape[1]}")
    span = np.asarray(high, np.float64) - np.asarray(low, np.float64)
    if not (np.isfinite(span) & (span > 0)).all():
        raise ToolkitError(f"{path}: expected finite bounds of actions, the low below the high; got {low!s}, {high!s}")
    return scaled(rows, low, high)


def goals(imported: Imported, achieved: slice | None) -> Imported:
    """The episodes with goals from their observations, where `achieved` names columns and they have none."""
    episodes, source = imported.episodes, imported.source
    if achieved is None or episodes.achieved.shape[1]:
        return imported
    if achieved.stop > episodes.obs.shape[1]:
        raise ToolkitError(
            f"--achieved: expected columns of {episodes.obs.shape[1]} numbers, got up to {achieved.stop}"
        )
    reached = np.ascontiguousarray(episodes.obs[:, achieved])
    desired = np.repeat(reached[episodes.starts[1:] - 1], np.diff(episodes.starts), axis=0)
    note = "no goals in the file: an episode's is where it ended, so that every one gets there"
    return replace(
        imported,
        episodes=replace(episodes, achieved=reached, desired=desired),
        source=replace(source, notes=(*source.notes, note)),
    )
