"""`toolkit.stats` against rliable, and how often its intervals hold the truth.

    python -m venv /tmp/rliable && /tmp/rliable/bin/pip install rliable==1.2.0 numpy "pandas<3"
    PYTHONPATH=. /tmp/rliable/bin/python benchmarks/check_stats.py

Some minutes on one core; writes benchmarks/results/stats.json and fails where a number is out of its bounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

from toolkit.stats import (
    bootstrap_ci,
    iqm,
    performance_profile,
    probability_of_improvement,
    seed_ci,
    success_ci,
)

OUT = Path(__file__).parent / "results" / "stats.json"
RESAMPLES = 4_000
EPISODES = 100
MOST = 800  # episodes of a seed where `--until-ci` ends at the latest
RATES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def beta(mean: float, spread: float) -> Draw:
    """Skill of a seed with this mean and standard deviation."""
    size = mean * (1 - mean) / spread**2 - 1
    return lambda rng, shape: rng.beta(mean * size, (1 - mean) * size, shape)


def alike(rate: float) -> Draw:
    """Seeds that are equally good."""
    return lambda rng, shape: np.full(shape, rate)


SKILLS: dict[str, Draw] = {
    "mean 0.5, sd 0.1": beta(0.5, 0.1),
    "mean 0.7, sd 0.1": beta(0.7, 0.1),
    "mean 0.9, sd 0.05": beta(0.9, 0.05),
    "mean 0.95, sd 0.04": beta(0.95, 0.04),
    "mean 0.5, sd 0.25": beta(0.5, 0.25),
    "all 0.8": alike(0.8),
    "all 0.99": alike(0.99),
    "0.9, one in seven 0.1": lambda rng, shape: np.where(rng.random(shape) < 0.85, 0.9, 0.1),
}
UNEVEN = {"mean 0.5, sd 0.1": 0.5, "mean 0.7, sd 0.1": 0.7, "mean 0.9, sd 0.05": 0.9, "mean 0.95, sd 0.04": 0.95}
HELD_TO = list(SKILLS)[:5]  # seeds that differ smoothly: here 95 % must mean 95 %


def against_rliable() -> dict[str, dict[str, float]]:
    """Ours, theirs and the largest difference as a share of the scores' scale, which is 1."""
    rng = np.random.default_rng(0)
    x, y = rng.beta(8, 3, (10, 5)), rng.beta(7, 4, (8, 5))
    levels = np.linspace(0, 1, 21)

    def interval(call: Callable[..., np.ndarray], scores: object) -> tuple[np.ndarray, np.ndarray]:
        np.random.seed(1)  # noqa: NPY002 (rliable draws from it)
        points, ends = library.get_interval_estimates({"x": scores}, call, reps=RESAMPLES)
        return np.asarray(points["x"]), np.asarray(ends["x"])

    pairs = {"iqm": (iqm(x), metrics.aggregate_iqm(x))}
    _, ends = interval(lambda s: np.array([metrics.aggregate_iqm(s)]), x)
    pairs["iqm_interval"] = (bootstrap_ci(x, resamples=RESAMPLES), ends[:, 0])
    middle, low, high = probability_of_improvement(x, y, RESAMPLES)
    points, ends = interval(lambda a, b: np.array([metrics.probability_of_improvement(a, b)]), (x, y))
    pairs["probability_of_improvement"] = ([middle, low, high], [points[0], *ends[:, 0]])
    np.random.seed(1)  # noqa: NPY002
    many = rng.beta(8, 3, (60, 5))  # so many that one score more or less above a level is no 1 %
    shares, bounds = library.create_performance_profile({"x": many}, levels, reps=2000)
    ours = performance_profile(many, levels)
    pairs["performance_profile"] = (ours[0], shares["x"])
    pairs["performance_profile_interval"] = (np.stack(ours[1:]), bounds["x"])
    return {
        name: {
            "ours": np.mean(a).item(),
            "rliable": np.mean(b).item(),
            "largest_difference": np.abs(np.subtract(a, b)).max().item(),
        }
        for name, (a, b) in pairs.items()
    }


def coverage(seeds: int, skill: Draw, runs: int, bootstraps: int) -> dict[str, float]:
    """Share of made-up runs whose interval holds the value the interquartile mean has on average."""
    rng = np.random.default_rng(seeds)
    truth = iqm(rng.binomial(EPISODES, skill(rng, (200_000, seeds))) / EPISODES, axis=-1).mean()
    rates = skill(rng, (runs, seeds))
    hits: dict[str, list[bool]] = {"ours": [], "seeds_alone": [], "percentile_bootstrap": [], "bca_bootstrap": []}
    widths = []
    for run, rate in enumerate(rates):
        success = rng.random((seeds, EPISODES)) < rate[:, None]
        means = success.mean(1)
        low, high = success_ci(success)
        widths.append((high - low) / 2)
        intervals = {"ours": (low, high), "seeds_alone": seed_ci(means)}
        if run < bootstraps:
            statistics = iqm(means[rng.integers(seeds, size=(1000, seeds))], axis=-1)
            intervals["percentile_bootstrap"] = np.percentile(statistics, [2.5, 97.5])
            intervals["bca_bootstrap"] = bca(means, statistics)
        for name, (start, end) in intervals.items():
            hits[name].append(bool(start - 1e-9 <= truth <= end + 1e-9))
    return {name: round(float(np.mean(found)), 4) for name, found in hits.items()} | {
        "mean_half_width": round(float(np.mean(widths)), 4)
    }


def bca(means: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """Bias-corrected and accelerated interval (Efron 1987)."""
    from scipy.stats import norm

    middle = iqm(means)
    share = np.clip(((statistics < middle) + 0.5 * (statistics == middle)).mean(), 1e-4, 1 - 1e-4)
    shift = norm.ppf(share)
    left_out = np.array([iqm(np.delete(means, place)) for place in range(len(means))])
    gap = left_out.mean() - left_out
    bend = (gap**3).sum() / max(6 * (gap**2).sum() ** 1.5, 1e-12)
    z = shift + np.array([-1.96, 1.96])
    return np.percentile(statistics, 100 * norm.cdf(shift + z / (1 - bend * z)))


def stopping(seeds: int, skill: Draw, truth: float, half: float, runs: int) -> dict[str, float | None]:
    """`--until-ci`: what stopping adds to the rate, and how often the interval holds the truth, early or not."""
    rng = np.random.default_rng(11)
    errors, hits, early = [], [], []
    for _ in range(runs):
        success = rng.random((seeds, MOST)) < skill(rng, (seeds, 1))
        done = 25
        while True:
            low, high = success_ci(success[:, :done])
            if (high - low) / 2 <= half or done == MOST:
                break
            done = min(2 * done, MOST)
        errors.append(success[:, :done].mean() - truth)
        hits.append(low <= truth <= high)
        early.append((high - low) / 2 <= half)
    held = np.array(hits)
    return {
        "bias": round(float(np.mean(errors)), 4),
        "coverage": round(float(held.mean()), 3),
        "reached": round(float(np.mean(early)), 3),
        "coverage_where_reached": round(float(held[early].mean()), 3) if any(early) else None,
    }


def main() -> None:
    small = "--small" in sys.argv
    runs, bootstraps = (400, 100) if small else (10_000, 2_000)
    agreement = against_rliable()
    covered = {}
    for seeds in (3, 5, 10, 20):
        covered[str(seeds)] = {name: coverage(seeds, skill, runs, bootstraps) for name, skill in SKILLS.items()}
        print(seeds, json.dumps(covered[str(seeds)]), flush=True)
    stopped = {
        f"{seeds} seeds, {half}": {
            **{f"all {rate}": stopping(seeds, alike(rate), rate, half, 2 * runs // 5) for rate in RATES},
            **{name: stopping(seeds, SKILLS[name], mean, half, 2 * runs // 5) for name, mean in UNEVEN.items()},
        }
        for seeds in (1, 3, 5)
        for half in (0.03, 0.05, 0.1)
    }
    ours = [covered[seeds][name]["ours"] for seeds in covered for name in HELD_TO]
    result = {
        "rliable": version("rliable"),
        "agreement": agreement,
        "coverage_of_95_percent": {
            "runs": runs,
            "bootstrapped_runs": bootstraps,
            "episodes": EPISODES,
            "seeds": covered,
        },
        "held_to": {"skills": HELD_TO, "lowest": min(ours), "highest": max(ours)},
        "until_ci": {"most_episodes": MOST, "runs": 2 * runs // 5, "found": stopped},
    }
    print(json.dumps(result["held_to"]), json.dumps(agreement, indent=1), json.dumps(stopped, indent=1))
    if not small:
        OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    worst = max(entry["largest_difference"] for entry in agreement.values())
    if worst > 0.01 or min(ours) < 0.93 or max(ours) > 0.97:
        sys.exit(f"out of bounds: {worst:.4f} from rliable, coverage {min(ours)} to {max(ours)}")


if __name__ == "__main__":
    main()
