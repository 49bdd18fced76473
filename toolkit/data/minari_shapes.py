"""Names, lengths and types of the arrays of Minari's episodes, and which of them are not as they should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from toolkit.data.finding import Finding
from toolkit.types import Array

OBSERVED = ("observation", "achieved_goal", "desired_goal")  # T + 1 rows each
FLAGS = ("terminations", "truncations")
TAKEN = ("actions", "rewards", *FLAGS)  # T rows each

T = TypeVar("T")


def shape_findings(raw: list[dict[str, Array]], first: int) -> list[Finding]:
    """What is wrong with the arrays of each episode, by name, measured at what most episodes have.

    The file calls them `first` and following.
    """
    goals = _most(tuple(key for key in OBSERVED[1:] if key in arrays) for arrays in raw)
    if len(goals) == 1:
        goals = OBSERVED[1:]
    names = (OBSERVED[0], *goals, *TAKEN)
    width = {key: _most(arrays[key].shape[1:] for arrays in raw if key in arrays) for key in names}
    kinds = {key: _most(arrays[key].dtype for arrays in raw if key in arrays) for key in names}
    flat = {key: size if key in OBSERVED or key == "actions" else () for key, size in width.items()}
    return [finding for index, arrays in enumerate(raw, first) for finding in _episode(index, arrays, flat, kinds)]


def _episode(index: int, arrays: dict[str, Array], width: dict[str, Any], kinds: dict[str, Any]) -> Iterator[Finding]:
    other = sorted(key for key in arrays if key not in (*OBSERVED, *TAKEN))
    goals_there = [key for key in OBSERVED[1:] if key in arrays]
    if other and len(goals_there) < 2:
        yield Finding(
            "goal-key", f"observations: expected achieved_goal and desired_goal, got {goals_there + other}", index
        )
        return
    missing = [key for key in width if key not in arrays]
    if missing:
        yield Finding("missing-array", f"expected {missing[0]!r}, which is not there", index)
        return
    length = _most(len(arrays[key]) - (key in OBSERVED) for key in width)
    if length < 1:
        yield Finding("row-count", "expected at least one transition, got none", index)
        return
    for key, columns in width.items():
        if key in (*OBSERVED, "actions") and len(columns) != 1:
            yield Finding("shape", f"{key}: expected rows of numbers, (N, D), got shape {arrays[key].shape}", index)
            return
        found, expected = arrays[key].shape, (length + (key in OBSERVED), *columns)
        if found != expected:
            rule = "row-count" if found[1:] == columns else "swapped-axes" if found == expected[::-1] else "shape"
            yield Finding(rule, f"{key}: expected shape {expected}, got {found}", index)
        elif key in FLAGS and not np.isfinite(arrays[key]).all():
            row = int(np.flatnonzero(~np.isfinite(arrays[key]))[0])
            yield Finding("not-finite", f"{key}: expected true or false, got NaN or infinity", index, row)
        elif arrays[key].dtype != kinds[key]:
            yield Finding("dtype", f"{key}: expected {kinds[key]} as in other episodes, got {arrays[key].dtype}", index)


def _most(values: Iterator[T] | Any) -> Any:
    """The most frequent of the values, the first of those that are; () of none."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else ()
