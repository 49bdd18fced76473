"""D4RL's HDF5 files: steps one below the other, without the observation after an episode's last.

Layout: `observations` (N, D), `actions` (N, A), `rewards` (N,) or (N, 1), `terminals` (N,), and where they are there
`timeouts` (N,), `next_observations` (N, D), `infos/goal` (N, G). Where goals are there, what was achieved are the
columns of an observation that `Options.achieved` names, or `infos/achieved_goal` and `infos/next_achieved_goal` (N, G),
which this package writes, or the first G numbers of the observation, as in D4RL's mazes. Actions lie in
`Options.bounds`, if the file has no `action_low` and `action_high` (A,).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.imported import Dropped, Imported, Source
from toolkit.data.importers.options import BOUNDS, Options, actions
from toolkit.data.importers.rows import Rows, flags, flat, jumps, pack, table
from toolkit.data.untrusted_hdf5 import UntrustedFile
from toolkit.types import BoolArray, FloatArray, ToolkitError

_WANTED = ("observations", "actions", "rewards", "terminals")
_ACHIEVED = ("achieved_goal", "next_achieved_goal")
_CONTINUED = 0.95  # share of timeouts across which the motion goes on, from which they are taken for reached goals


def read(path: Path, options: Options) -> Imported:
    """The episodes of a D4RL file. Raises ToolkitError."""
    with UntrustedFile(path) as file:
        root = file.root
        keys = file.keys(root, ".") or []
        missing = [name for name in _WANTED if name not in keys]
        if missing:
            raise ToolkitError(f"{path}: expected {', '.join(_WANTED)} as D4RL's files have, found no {missing[0]!r}")
        optional = [name for name in ("timeouts", "next_observations", *BOUNDS) if name in keys]
        arrays = {name: file.read(root, name, "/") for name in (*_WANTED, *optional)}
        infos = (file.keys(root, "infos") or ()) if "infos" in keys else ()
        arrays |= {name: file.read(root, f"infos/{name}", "/") for name in ("goal", *_ACHIEVED) if name in infos}
    return from_flat(path, "d4rl", arrays, options)


def from_flat(path: Path, kind: str, arrays: dict[str, Any], options: Options) -> Imported:
    """Episodes of arrays named as in D4RL's layout."""
    notes = []
    if arrays["rewards"].ndim == 2:
        notes.append("rewards have a second axis of length one, which is left out")
    obs = table(arrays["observations"], "observations", path)
    terminated = flags(arrays["terminals"], "terminals", path)
    for name, rows in arrays.items():
        if name not in BOUNDS and rows.shape[:1] != (len(obs),):
            raise ToolkitError(f"{path}: {name}: expected {len(obs)} rows as observations have, got shape {rows.shape}")
    action = actions(arrays["actions"], path, options, arrays)
    after = table(arrays["next_observations"], "next_observations", path) if "next_observations" in arrays else None
    if after is not None and after.shape != obs.shape:
        raise ToolkitError(f"{path}: next_observations: expected shape {obs.shape}, got {after.shape}")
    achieved, then_achieved, desired = _goals(path, arrays, obs, obs if after is None else after, options.achieved)
    continued = None
    if "timeouts" in arrays:
        truncated = flags(arrays["timeouts"], "timeouts", path)
        continued = None if after is not None else _goes_on(truncated & ~terminated, obs, desired)
        if continued is not None:
            count = int(continued.sum())
            notes.append(f"{count} timeouts mean that a goal was reached and the next one shown, as in maze2d")
    else:
        truncated = _between(obs, after, achieved, terminated)
        sign = "jumps of the observation, a guess" if after is None else "next observations that are not the next row"
        notes.append(f"no timeouts: episodes are told apart by {int(truncated.sum())} {sign}")
    if not terminated.any():
        notes.append("no step is terminal: every episode ends where its recording does")
    rows = Rows(
        obs=obs,
        achieved=achieved,
        desired=desired,
        action=action,
        reward=flat(arrays["rewards"], "rewards", path),
        terminated=terminated,
        truncated=truncated,
        last=terminated | truncated,
        after=None if after is None else (after, then_achieved, desired),
        continued=continued,
    )
    rows, dropped = (rows, ()) if continued is None else _without_repeats(rows, continued)
    return pack(rows, Source(path, kind, {}, np.zeros(0, np.int64), dropped, tuple(notes)))


def _without_repeats(rows: Rows, continued: BoolArray) -> tuple[Rows, tuple[Dropped, ...]]:
    """Without rows that show once more what was seen before a reached goal, though the simulator has moved on since.

    D4RL's generator of maze2d leaves such a row after each goal: what came of the step before it is nowhere, and its
    own step is two of the simulator's.
    """
    repeats = np.zeros(len(continued), np.bool_)
    repeats[1:] = continued[:-1] & (rows.obs[1:] == rows.obs[:-1]).all(axis=1)
    if not repeats.any():
        return rows, ()
    rows = rows._replace(continued=continued & ~np.append(repeats[1:], False))
    kept = {name: column[~repeats] for name, column in rows._asdict().items() if column is not None}
    dropped = Dropped(int(repeats.sum()), "steps", "they show the observation before a reached goal again")
    return Rows(**kept), (dropped,)


def _goals(
    path: Path, arrays: dict[str, Any], obs: FloatArray, after: FloatArray, place: slice | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What was achieved before and after each step, and desired, (N, G) each."""
    if "goal" not in arrays:
        none = np.zeros((len(obs), 0), np.float32)
        return none, none, none
    desired = table(arrays["goal"], "goals", path)
    if place is None and all(name in arrays for name in _ACHIEVED):
        before, then = (table(arrays[name], name, path) for name in _ACHIEVED)
        if not before.shape == then.shape == desired.shape:
            raise ToolkitError(f"{path}: infos: expected {' and '.join(_ACHIEVED)} of the goals' shape {desired.shape}")
        return before, then, desired
    place = place or slice(0, desired.shape[1])
    reached = obs[:, place]
    if reached.shape != desired.shape:
        raise ToolkitError(
            f"{path}: goals: expected {reached.shape[1]} numbers, as columns {place.start}:{place.stop} of an "
            f"observation have; got {desired.shape[1]}"
        )
    return reached, after[:, place], desired


def _goes_on(timeouts: BoolArray, obs: FloatArray, desired: FloatArray) -> BoolArray | None:
    """Timeouts after which the same motion goes on to another goal, or None where they are what they are called."""
    at = np.flatnonzero(timeouts[:-1])
    if not len(at) or not desired.shape[1]:
        return None
    smooth = ~jumps(obs)[at]
    shown = (desired[at + 1] != desired[at]).any(axis=1)
    if (smooth & shown).mean() < _CONTINUED:
        return None
    result = np.zeros(len(obs), np.bool_)
    result[at[smooth]] = True
    return result


def _between(obs: FloatArray, after: FloatArray | None, achieved: FloatArray, terminated: BoolArray) -> BoolArray:
    """Last steps of episodes in a file that does not mark them, (N,)."""
    cut = np.zeros(len(obs), np.bool_)
    if after is not None:
        cut[:-1] = (np.abs(obs[1:] - after[:-1]) > 1e-6).any(axis=1)
    else:
        cut[:-1] = jumps(achieved if achieved.shape[1] else obs, ~terminated[:-1])
    return cut & ~terminated
