"""Steps one below the other, as most formats store them, to episodes of T + 1 rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.finding import Finding
from toolkit.data.imported import Dropped, Imported, Source, acting, count_ends
from toolkit.types import Array, BoolArray, Episodes, FloatArray, IntArray, ToolkitError

JUMP = 20  # times what 9 of 10 steps stay below, in some number of an observation
_RESTING = 5e-4  # of its range is a number's usual step at most where it mostly rests
_NOISE = 1e-5  # or so far in its own unit
_SAMPLE = 20_000  # steps looked at to learn how far one goes
_SAME = 1e-6  # observations that differ by less are one


class Rows(NamedTuple):
    """N steps in order; an episode's are together."""

    obs: FloatArray  # (N, D) seen before the step
    achieved: FloatArray  # (N, G)
    desired: FloatArray  # (N, G)
    action: FloatArray  # (N, A) within [-1, 1]
    reward: FloatArray  # (N,)
    terminated: BoolArray  # (N,)
    truncated: BoolArray  # (N,)
    last: BoolArray  # (N,) an episode's last step
    after: tuple[FloatArray, FloatArray, FloatArray] | None = None  # seen, achieved and desired after the step
    continued: BoolArray | None = None  # (N,) last steps whose outcome is the next row although another episode begins


def pack(rows: Rows, source: Source, names: IntArray | None = None) -> Imported:
    """Episodes of these steps; `source` is completed by how they ended and what was dropped.

    `names` (E,) are what the file calls the episodes that `last` ends, where it does not just count them.

    Where the file has the observation after a step, it closes the episode. Where it has not, the last step of a
    truncated or cut episode has no outcome: it is dropped, and its observation closes the episode. A terminated one
    keeps its last step, closed by that step's own observation again, since no value is ever taken from there.
    """
    count = _count(rows, source)
    last, slipped = rows.last.copy(), np.zeros(count, np.bool_)
    last[-1] = True
    marked = np.flatnonzero(last)
    names = np.arange(len(marked)) if names is None else names
    if rows.after is not None:
        slipped[:-1] = ~last[:-1] & (np.abs(rows.obs[1:] - rows.after[0][:-1]) > _SAME).any(axis=1)
        last |= slipped  # what the file says followed is kept, in an episode that ends there
    end = np.flatnonzero(last)
    begin = np.concatenate([[0], end[:-1] + 1])
    whole = rows.terminated[end] | (rows.after is not None)  # the last step stays
    if rows.continued is not None:
        whole |= rows.continued[end]
    steps = end - begin + whole
    kept = steps > 0
    packed = _gather(rows, begin[kept], end[kept], whole[kept])
    numbers = names[np.searchsorted(marked, begin[kept])]
    dropped = (
        Dropped(int((~whole).sum()), "last steps", "the file does not hold the observation after them"),
        Dropped(int((~kept).sum()), "episodes", "a single step without an outcome"),
    )
    stood_in = int((rows.terminated[end] & (rows.after is None)).sum())
    note = (f"{stood_in} terminated episodes end in a copy of their last observation, for want of the one after it",)
    source = replace(
        source,
        ends=count_ends(packed),
        numbers=numbers,
        dropped=source.dropped + tuple(entry for entry in dropped if entry.number),
        notes=source.notes + note * (stood_in > 0),
    )
    return Imported(packed, source, _misaligned(slipped, marked, names))


def _count(rows: Rows, source: Source) -> int:
    """How many steps there are. Raises ToolkitError where arrays differ in that, or there is none."""
    count = len(rows.reward)
    for name, array in rows._asdict().items():
        if isinstance(array, np.ndarray) and len(array) != count:
            raise ToolkitError(f"{source.path}: {name}: expected {count} rows as rewards have, got {len(array)}")
    if not count:
        raise ToolkitError(f"{source.path}: expected at least one step, got none")
    return count


def _gather(rows: Rows, begin: IntArray, end: IntArray, whole: BoolArray) -> Episodes:
    """Episodes of the steps `begin` to `end`, the last of which is a step where `whole`, else an outcome."""
    sizes = end - begin + 1 + whole
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    final = starts[1:] - 1
    index = np.repeat(begin - starts[:-1], sizes) + np.arange(starts[-1])  # the step in each row
    index[final] = end  # ... and in a final row what closes the episode
    if rows.continued is not None:
        index[final] += rows.continued[end]
    seen = (rows.obs, rows.achieved, rows.desired)
    obs, achieved, desired = (np.ascontiguousarray(array[index], np.float32) for array in seen)
    desired[final] = rows.desired[end]  # where the motion goes on, the next row's is another episode's
    if rows.after is not None:
        for array, after in zip((obs, achieved, desired), rows.after, strict=True):
            array[final] = after[end]
    moving = acting(starts)
    truncated = rows.truncated[index] & moving
    truncated[final - 1] |= rows.truncated[end]  # a last step that was dropped leaves its flag to the one before
    return Episodes(
        obs,
        achieved,
        desired,
        action=(rows.action[index] * moving[:, None]).astype(np.float32),
        reward=(rows.reward[index] * moving).astype(np.float32),
        terminated=rows.terminated[index] & moving,
        truncated=truncated,
        starts=starts,
    )


def _misaligned(slipped: BoolArray, marked: IntArray, names: IntArray) -> tuple[Finding, ...]:
    """Where the file goes on elsewhere than it says twice in a row; once is an end that bears no mark."""
    at = np.flatnonzero(slipped[:-1] & slipped[1:])
    which, first = np.unique(np.searchsorted(marked, at), return_index=True)
    begin = np.concatenate([[0], marked[:-1] + 1])
    message = "its next observation is not the observation of the step that follows"
    return tuple(
        Finding("misaligned", message, int(names[e]), int(at[place] - begin[e]))
        for e, place in zip(which.tolist(), first.tolist(), strict=True)
    )


def jumps(x: FloatArray, within: BoolArray | None = None) -> BoolArray:
    """Steps from a row of `x` (N, D) to the next that go far beyond the usual, (N - 1,).

    `within` (N - 1,) marks the steps that count, and from which the usual is learned. A number that rests most of the
    time, such as a door's angle, tells nothing: noise is its usual step.
    """
    steps = np.abs(np.diff(x, axis=0))
    known = steps if within is None else steps[within]
    if not len(known) or not x.shape[1]:
        return np.zeros(len(steps), np.bool_)
    usual = np.quantile(known[:: 1 + len(known) // _SAMPLE], 0.9, axis=0)
    low, high = np.quantile(x[:: 1 + len(x) // _SAMPLE], (0.01, 0.99), axis=0)
    rests = usual <= np.maximum(_RESTING * (high - low), _NOISE)
    far: BoolArray = np.any(steps > JUMP * np.where(rests, np.inf, usual), axis=1)
    return far if within is None else far & within


def flat(array: Array, name: str, path: Any) -> FloatArray:
    """Rewards and the like, which some files hold as (N, 1), as (N,). Raises ToolkitError for other shapes."""
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise ToolkitError(f"{path}: {name}: expected one number a step, (N,); got shape {array.shape}")
    squeezed: FloatArray = array.reshape(-1).astype(np.float32)
    return squeezed


def flags(array: Array, name: str, path: Any) -> BoolArray:
    """Flags of any number type, (N,) or (N, 1), as (N,) bool. Raises ToolkitError for other shapes, NaN, infinity."""
    numbers = flat(array, name, path)
    if not np.isfinite(numbers).all():
        raise ToolkitError(f"{path}: {name}: expected 0 or 1, got {numbers[~np.isfinite(numbers)][0]}")
    marked: BoolArray = numbers != 0
    return marked


def table(array: Array, name: str, path: Any) -> FloatArray:
    """Observations or actions as (N, D) numbers. Raises ToolkitError for pictures and the like."""
    if array.ndim != 2 or not array.shape[1]:
        raise ToolkitError(f"{path}: {name}: expected rows of numbers, (N, D); got shape {array.shape}")
    return array.astype(np.float32)
