"""OGBench's .npz files: T + 1 states a trajectory, the last marked by `terminals`, and no rewards.

Layout: `observations` (R, D), `actions` (R, A), `terminals` (R,), 1 on the last state of a trajectory, whose action
means nothing; `qpos`, `qvel` and the like are left out. NAME.npz and NAME-val.npz are two data sets. Actions lie in
`Options.bounds`, if the file has no `action_low` and `action_high` (A,).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.data.imported import Dropped, Imported, Source, acting, count_ends
from toolkit.data.importers.options import BOUNDS, Options, actions
from toolkit.data.importers.rows import flags, table
from toolkit.data.untrusted_npz import read_npz
from toolkit.types import Episodes, ToolkitError


def read(path: Path, options: Options) -> Imported:
    """The trajectories of an OGBench file; nothing terminates in them. Raises ToolkitError."""
    arrays = read_npz(path)
    missing = [name for name in ("observations", "actions", "terminals") if name not in arrays]
    if missing:
        raise ToolkitError(f"{path}: expected observations, actions and terminals, found no {missing[0]!r}")
    obs = table(arrays["observations"], "observations", path)
    action = actions(arrays["actions"], path, options, arrays)
    marked = flags(arrays["terminals"], "terminals", path)
    if not len(obs) or not len(obs) == len(action) == len(marked):
        counts = f"{len(obs)}, {len(action)} and {len(marked)}"
        raise ToolkitError(f"{path}: expected as many observations, actions and terminals, got {counts}")
    last = marked.copy()
    last[-1] = True
    starts = np.concatenate([[0], np.flatnonzero(last) + 1]).astype(np.int64)
    kept = np.flatnonzero(np.diff(starts) > 1)
    lonely = len(starts) - 1 - len(kept)
    none = np.zeros((len(obs), 0), np.float32)
    moving = acting(starts)
    truncated = np.zeros(len(obs), np.bool_)
    truncated[starts[1:][kept] - 2] = marked[starts[1:][kept] - 1]
    nothing = np.zeros(len(obs), np.bool_)
    episodes = Episodes(
        obs=obs,
        achieved=none,
        desired=none,
        action=action * moving[:, None],
        reward=np.zeros(len(obs), np.float32),
        terminated=nothing,
        truncated=truncated,
        starts=starts,
    ).select(kept)
    extra = sorted(set(arrays) - {"observations", "actions", "terminals", *BOUNDS})
    source = Source(
        path,
        "ogbench",
        count_ends(episodes),
        kept,
        dropped=(Dropped(lonely, "trajectories", "a single state without an action"),) * (lonely > 0),
        notes=(f"not read: {', '.join(extra)}",) * bool(extra),
        rewarded=False,
    )
    return Imported(episodes, source)
