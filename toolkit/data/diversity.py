"""How unlike the actions are that a recording takes in like places."""

from __future__ import annotations

import numpy as np

from toolkit.data.imported import acting
from toolkit.types import Episodes, FloatArray, IntArray

PROBES, OTHERS = 1000, 20_000  # transitions whose neighbours are looked for, and among how many


def diversity(episodes: Episodes) -> float:
    """How unlike the actions are that were taken in like places: 0 where always the same, 1 where any.

    Root mean square difference between an action and the one taken at the nearest observation of another episode, over
    that of two actions drawn at random. A recording without a second episode has 0.
    """
    rows = np.flatnonzero(acting(episodes.starts))
    owner = np.repeat(np.arange(len(episodes)), np.diff(episodes.starts))
    random = np.random.Generator(np.random.Philox(key=0))
    pool = np.sort(random.permutation(rows)[:OTHERS])
    owner, action = owner[pool], episodes.action[pool].astype(np.float64)
    probes = random.permutation(len(pool))[:PROBES]
    seen = np.concatenate([episodes.obs[pool], episodes.desired[pool]], axis=1, dtype=np.float64)
    spread = seen.std(axis=0)
    # centred, because squares of large numbers leave nothing of small differences in float32
    seen = ((seen - seen.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)).astype(np.float32)
    parts = np.array_split(probes, 1 + len(probes) // 100)  # so that the table of distances stays small
    nearest = np.concatenate([_nearest(seen, owner, part) for part in parts])
    known = nearest >= 0
    whole = _distance(action, action[random.permutation(len(pool))])
    return _distance(action[probes[known]], action[nearest[known]]) / whole if whole > 0 and known.any() else 0.0


def _nearest(seen: FloatArray, owner: IntArray, probes: IntArray) -> IntArray:
    """The row of another episode whose observation is nearest to each probe's, -1 where there is none."""
    if not len(probes):
        return probes
    x = seen[probes]
    distance = (x * x).sum(1)[:, None] - 2 * x @ seen.T + (seen * seen).sum(1)
    distance[owner[probes][:, None] == owner] = np.inf
    best = distance.argmin(axis=1)
    return np.where(np.isfinite(distance[np.arange(len(best)), best]), best, -1)


def _distance(a: FloatArray, b: FloatArray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum(axis=1).mean())) if len(a) else 0.0
