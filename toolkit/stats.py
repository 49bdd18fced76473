"""Numbers over seeds that can be compared: interquartile means and bootstrap intervals (level 3).

Follows Agarwal et al. 2021 (arXiv:2108.13264) and its library rliable: the interquartile mean drops the lowest and
the highest quarter of the scores, `int(count / 4)` of them on each side, so that with fewer than four scores it is
the plain mean. Intervals are percentiles of resampled statistics. Every random number comes from a Philox stream
with a fixed key: the same scores give the same interval on every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from toolkit.types import Json

Numbers: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[Numbers], Numbers]  # over the last axis

RESAMPLES = 2000
_KEY = 20210831
_CHUNK = 1 << 22  # numbers drawn at once, so that memory stays flat however many episodes there are


def iqm(scores: npt.ArrayLike, axis: int | None = None) -> Any:
    """Interquartile mean over `axis` (all scores by default), as `scipy.stats.trim_mean(scores, 0.25)`."""
    values = np.asarray(scores, np.float64)
    values = np.sort(values.reshape(-1) if axis is None else np.moveaxis(values, axis, -1), axis=-1)
    count = values.shape[-1]
    if not count:
        raise ValueError("the interquartile mean of no scores")
    cut = int(0.25 * count)
    return values[..., cut : count - cut].mean(-1)


def _iqm_last(values: Numbers) -> Numbers:
    return np.asarray(iqm(values, axis=-1))


def bootstrap_ci(
    scores: npt.ArrayLike, statistic: Statistic = _iqm_last, resamples: int = RESAMPLES, confidence: float = 0.95
) -> tuple[float, float]:
    """Stratified bootstrap interval of a statistic of scores (S, T): S seeds of each of T tasks.

    Each task draws S of its own seeds, with replacement and independently of the others; the statistic sees the
    S * T drawn scores along its last axis. One row of scores (S,) is one task.
    """
    values = np.asarray(scores, np.float64)
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    seeds, tasks = values.shape
    drawn = _stream().integers(seeds, size=(resamples, seeds, tasks))
    sampled = values[drawn, np.arange(tasks)].reshape(resamples, seeds * tasks)
    return _interval(statistic(sampled), confidence)


def nested_ci(
    values: npt.ArrayLike, statistic: Statistic = _iqm_last, resamples: int = RESAMPLES, confidence: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval over two levels, values (S, n): n episodes of each of S seeds.

    Each resample draws S seeds with replacement, then n episodes within each drawn seed, and takes the statistic of
    the S means: the interval holds both the spread between seeds and the chance of the episodes. NaN marks an
    episode without a value; a seed without any is left out. (NaN, NaN) when nothing is left.
    """
    rows = [row[~np.isnan(row)] for row in np.atleast_2d(np.asarray(values, np.float64))]
    rows = [row for row in rows if len(row)]
    if not rows:
        return float("nan"), float("nan")
    counts = np.array([len(row) for row in rows])
    seeds, longest = len(rows), int(counts.max())
    packed = np.zeros((seeds, longest))
    for row, values_of_row in zip(packed, rows, strict=True):
        row[: len(values_of_row)] = values_of_row
    means = np.empty((resamples, seeds))
    random = _stream()
    size = max(1, _CHUNK // (seeds * longest))
    for start in range(0, resamples, size):
        part = means[start : start + size]
        drawn = random.integers(seeds, size=part.shape)
        count = counts[drawn][..., None]
        uniform = random.random((*part.shape, longest), np.float32)
        episode = np.minimum((uniform * count).astype(np.int64), count - 1)
        weight = np.arange(longest) < count
        part[:] = (packed[drawn[..., None], episode] * weight).sum(-1) / count[..., 0]
    return _interval(statistic(means), confidence)


def success_summary(success: npt.ArrayLike) -> Json:
    """Summary of outcomes (S, n), n episodes of each of S seeds.

    `per_seed` holds each seed's success rate, `iqm` the interquartile mean of these S rates (what rliable computes
    for S runs of one task; the mean when S < 4), `ci95` the interval of `nested_ci`, `episodes` is n, per seed.
    """
    return value_summary(success) | {"episodes": int(np.atleast_2d(np.asarray(success)).shape[1])}


def value_summary(values: npt.ArrayLike) -> Json:
    """The same for any number per episode, (S, n) with NaN where an episode has none.

    Keys `iqm`, `ci95` and `per_seed`, of the seeds' means; null where a seed, or everything, has no value.
    """
    table = np.atleast_2d(np.asarray(values, np.float64))
    means = [float(row[~np.isnan(row)].mean()) if not np.isnan(row).all() else float("nan") for row in table]
    known = [mean for mean in means if not np.isnan(mean)]
    low, high = nested_ci(table)
    return {
        "iqm": float(iqm(known)) if known else None,
        "ci95": [low, high] if known else [None, None],
        "per_seed": [None if np.isnan(mean) else mean for mean in means],
    }


def _stream() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_KEY))


def _interval(statistics: Numbers, confidence: float) -> tuple[float, float]:
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(statistics, [tail, 100.0 - tail])
    return float(low), float(high)
