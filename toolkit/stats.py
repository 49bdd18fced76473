"""Numbers over seeds that can be compared: interquartile means, intervals, comparisons (level 3).

Follows Agarwal et al. 2021 (arXiv:2108.13264) and its library rliable: the interquartile mean drops the lowest and
the highest quarter of the scores, `int(count / 4)` of them on each side, so that with fewer than four scores it is
the plain mean. Intervals over a few seeds are not bootstrapped, because a bootstrap of three numbers holds the truth
about three times in four: docs/statistics.md has the measurements. Every random number comes from a Philox stream with
a fixed key: the same scores give the same interval on every run. All intervals are at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from toolkit.types import Json

Numbers: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[Numbers], Numbers]  # over the last axis

RESAMPLES = 2000
EXACT = 12  # seeds up to which all sign flips are tried
_KEY = 20210831
_CHUNK = 1 << 22  # numbers drawn at once, so that memory stays flat however many scores there are
_Z = 1.959964
# Half-width of the 95 % interval in standard errors of the mean, for 2, 3, ... 9 seeds: what holds the truth 95 times
# in 100 where seeds are normal, which is Student's t as long as the interquartile mean is the mean.
_FACTORS = (12.706, 4.303, 3.294, 2.842, 2.644, 2.497, 2.501, 2.421)


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


def seed_ci(means: npt.ArrayLike) -> tuple[float, float]:
    """95 % interval of the interquartile mean of S seeds' means, (S,); a single seed has none: (NaN, NaN).

    The middle plus or minus a multiple of its standard error. Up to nine seeds that is the mean's, times a factor found
    by simulation; from ten on it comes from the winsorised variance (Tukey & McLaughlin 1963), in which each score
    that the mean leaves out counts as the outermost one kept. A seed's mean holds the chance of its episodes already,
    so there is no second level.
    """
    values = np.sort(np.asarray(means, np.float64))
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    if count - 2 < len(_FACTORS):
        half = _FACTORS[count - 2] * float(values.std(ddof=1)) / math.sqrt(count)
    else:
        cut = int(0.25 * count)
        kept = count - 2 * cut
        spread = float(np.clip(values, values[cut], values[-1 - cut]).std(ddof=1))
        half = student(kept - 1) * (1 + 0.65 / kept) * spread * math.sqrt(count) / kept
    middle = float(iqm(values))
    return middle - half, middle + half


def wilson_ci(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a probability from `hits` in `count` independent trials (Wilson 1927)."""
    share, square = hits / count, _Z * _Z / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == count else middle + half)


def success_ci(success: npt.ArrayLike) -> tuple[float, float]:
    """95 % interval of the success rate from outcomes (S, n), n episodes of each of S seeds; within [0, 1].

    `seed_ci` of the seeds' rates, widened to `wilson_ci` of all episodes: seeds that happen to agree, as all do at
    1.00, do not make the episodes certain. With one seed it is about this policy alone. Rates near 0 and 1 are skewed,
    so the seeds' interval is made of arcsin sqrt of the rates (Anscombe 1948) and carried back.
    """
    table = np.atleast_2d(np.asarray(success, np.float64))
    low, high = wilson_ci(int(table.sum()), table.size)
    if len(table) > 1:
        episodes, middle = table.shape[1], float(iqm(table.mean(1)))
        ends = seed_ci(np.arcsin(np.sqrt((table.sum(1) + 0.375) / (episodes + 0.75))))
        seeds_low, seeds_high = np.sin(np.clip(ends, 0.0, np.pi / 2)) ** 2
        low, high = min(low, middle, float(seeds_low)), max(high, middle, float(seeds_high))
    return max(low, 0.0), min(high, 1.0)


def success_summary(success: npt.ArrayLike) -> Json:
    """Summary of outcomes (S, n), n episodes of each of S seeds.

    `per_seed` holds each seed's success rate, `iqm` the interquartile mean of these S rates (what rliable computes
    for S runs of one task; the mean when S < 4), `ci95` the interval of `success_ci`, `episodes` is n, per seed.
    All but the last are null where the outcomes are NaN: the task does not say what success is.
    """
    table = np.atleast_2d(np.asarray(success, np.float64))
    interval = [None, None] if np.isnan(table).any() else list(success_ci(table))
    return value_summary(table) | {"ci95": interval, "episodes": int(table.shape[1])}


def value_summary(values: npt.ArrayLike) -> Json:
    """The same for any number per episode, (S, n) with NaN where an episode has none.

    Keys `iqm`, `ci95` (`seed_ci`; over the episodes where only one seed has values) and `per_seed`, of the seeds'
    means; null where a seed, or everything, has no value.
    """
    rows = [row[~np.isnan(row)] for row in np.atleast_2d(np.asarray(values, np.float64))]
    known = [row for row in rows if len(row)]
    low, high = math.nan, math.nan
    if len(known) > 1:
        low, high = seed_ci([row.mean() for row in known])
    elif known and len(known[0]) > 1:
        row = known[0]
        half = student(len(row) - 1) * float(row.std(ddof=1)) / math.sqrt(len(row))
        low, high = float(row.mean()) - half, float(row.mean()) + half
    return {
        "iqm": float(iqm([row.mean() for row in known])) if known else None,
        "ci95": [None, None] if math.isnan(low) else [low, high],
        "per_seed": [float(row.mean()) if len(row) else None for row in rows],
    }


def bootstrap_ci(
    scores: npt.ArrayLike, statistic: Statistic = _iqm_last, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Stratified bootstrap interval of a statistic of scores (S, T): S seeds of each of T tasks, as rliable has it.

    Each task draws S of its own seeds, with replacement and independently of the others; the statistic sees the
    S * T drawn scores along its last axis. One row of scores (S,) is one task. Too narrow for few seeds.
    """
    values = _by_task(scores)
    seeds, tasks = values.shape
    drawn = _stream().integers(seeds, size=(resamples, seeds, tasks))
    return _interval(statistic(values[drawn, np.arange(tasks)].reshape(resamples, seeds * tasks)))


def performance_profile(
    scores: npt.ArrayLike, thresholds: npt.ArrayLike, resamples: int = RESAMPLES
) -> tuple[Numbers, Numbers, Numbers]:
    """Share of scores (S, T) above each threshold (K,), and the ends of its stratified bootstrap interval; each (K,).

    The intervals are pointwise (Agarwal et al. 2021, section 4.2).
    """
    values, levels = _by_task(scores), np.asarray(thresholds, np.float64)
    above = values[..., None] > levels  # (S, T, K)
    flat = above.mean((0, 1))
    seeds, tasks = values.shape
    shares = np.empty((resamples, len(levels)))
    random = _stream()
    size = max(1, _CHUNK // above.size)
    for start in range(0, resamples, size):
        part = shares[start : start + size]
        drawn = random.integers(seeds, size=(len(part), seeds, tasks))
        part[:] = above[drawn, np.arange(tasks)].mean((1, 2))
    low, high = np.percentile(shares, [2.5, 97.5], axis=0)
    return flat, low, high


def probability_of_improvement(
    ours: npt.ArrayLike, theirs: npt.ArrayLike, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Chance that a run of ours (S, T) beats one of theirs (S', T) on a task drawn at random, and its interval.

    Ties count half (Agarwal et al. 2021, section 4.3). The interval draws the seeds of both anew, task by task.
    """
    x, y = _by_task(ours), _by_task(theirs)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"scores of {x.shape[1]} and {y.shape[1]} tasks")
    wins = np.sign(x[:, None] - y) / 2 + 0.5  # (S, S', T)
    random, tasks = _stream(), np.arange(x.shape[1])
    means = np.empty(resamples)
    size = max(1, _CHUNK // wins.size)
    for start in range(0, resamples, size):
        part = means[start : start + size]
        i, j = (random.integers(len(v), size=(len(part), len(v), v.shape[1])) for v in (x, y))
        part[:] = wins[i[:, :, None], j[:, None], tasks].mean((1, 2, 3))
    return (float(wins.mean()), *_interval(means))


def paired(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> Json:
    """Compare two lists of seeds' scores (S,), the same seed at the same place.

    `difference` is the mean of ours less theirs, `ci95` its interval (Student's t over the differences), `p` the
    two-sided chance of a mean at least as far from 0 where the sign of each difference is a coin's (all 2^S flips up
    to `EXACT` seeds, else 10,000 drawn ones), `least_p` the smallest that S seeds can give. Null where S < 2.
    Raises ValueError for a score that is NaN or infinite: no flip compares with it, so `p` would be 0.
    """
    gap = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if not np.isfinite(gap).all():
        raise ValueError("a paired comparison of scores that are not all finite")
    count, mean = len(gap), float(gap.mean())
    if count < 2:
        return {"difference": mean, "ci95": [None, None], "p": None, "least_p": None, "seeds": count}
    half = student(count - 1) * float(gap.std(ddof=1)) / math.sqrt(count)
    if count <= EXACT:
        flips = np.array(list(product((-1.0, 1.0), repeat=count)))
    else:
        drawn = _stream().integers(2, size=(10_000, count)) * 2.0 - 1.0
        flips = np.concatenate([np.ones((1, count)), drawn])  # what was observed is one of the possible ones
    rounding = 1e-9 * np.abs(gap).sum()
    p = float((np.abs(flips @ gap) >= abs(gap.sum()) - rounding).mean())
    least = 2.0 / len(flips) if count <= EXACT else 1.0 / len(flips)
    return {"difference": mean, "ci95": [mean - half, mean + half], "p": p, "least_p": least, "seeds": count}


def holm(p: Sequence[float]) -> list[float]:
    """The p of several tests, each corrected so that one below 0.05 among them is by chance at most once in 20 times.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the smallest p counts as many times as there
    are tests, the next once less, and none becomes smaller than one before it. In the order given.
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rank correlation, equal values at their mean rank; NaN for fewer than two, or all equal."""
    ranks = []
    for values in (np.asarray(x, np.float64), np.asarray(y, np.float64)):
        below, same = (compare(values[:, None], values).sum(1) for compare in (np.greater, np.equal))
        ranks.append(below + (same - 1) / 2)
    if len(ranks[0]) < 2 or min(rank.std() for rank in ranks) == 0.0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _by_task(scores: npt.ArrayLike) -> Numbers:
    values = np.asarray(scores, np.float64)
    return values.reshape(-1, 1) if values.ndim == 1 else values


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t; Cornish and Fisher's expansion is right to 0.04 % from 4 degrees on."""
    exact = (12.7062, 4.30265, 3.18245)
    if freedom <= len(exact):
        return exact[freedom - 1]
    z, n = _Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def _stream() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_KEY))


def _interval(statistics: Numbers) -> tuple[float, float]:
    low, high = np.percentile(statistics, [2.5, 97.5])
    return float(low), float(high)
