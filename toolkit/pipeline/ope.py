"""Ranking finished policies by recorded data alone, and how well that agrees with the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.catalog import DATA
from toolkit.data.minari import read_minari
from toolkit.evaluate import part_of
from toolkit.files import read_json
from toolkit.fqe import estimate
from toolkit.pipeline.folder import MANIFEST
from toolkit.pipeline.stitch import by_dataset
from toolkit.policy import load_policy
from toolkit.recordings import find_data
from toolkit.stats import spearman
from toolkit.tasks import relabel
from toolkit.types import Failed, Json, Progress


def rank_runs(
    runs: Sequence[Path],
    data: str | None = None,
    updates: int = 3_000,
    gamma: float | None = None,
    progress: Progress | None = None,
) -> Json:
    """Fitted Q evaluation of every finished training stage and seed of runs; the best estimate comes first.

    `data` is a Minari data set, by path or by id, in place of the recording that each stage goes back to; `gamma` the
    discount of the estimates, by default the largest of the stages. `return` is what the stage's last evaluation in
    the simulator paid, without discount, `spearman` the rank correlation of both over all policies and seeds, and
    `regret` what is lost by taking the first. Raises ToolkitError where a run has no trained stage with a recording, or
    an estimate diverges.
    """
    jobs = [
        (Path(run), name, Path(run) / dataset if data is None else find_data(data, DATA))
        for run in runs
        for dataset, names in by_dataset(Path(run)).items()
        for name in names
    ]
    manifests = [read_json(run / "stages" / name / MANIFEST) or {} for run, name, _ in jobs]
    gamma = gamma if gamma is not None else max(manifest["config"]["gamma"] for manifest in manifests)
    found: list[Json] = []
    for place, ((run, name, dataset), manifest) in enumerate(zip(jobs, manifests, strict=True)):
        policy = load_policy(run / "stages" / name)
        show = part_of(progress, place, len(jobs))
        values = estimate(policy, relabel(policy.card, read_minari(dataset)), gamma, updates, progress=show)
        if not np.isfinite(values).all():
            raise Failed(f"{run} {name}: the estimate diverged; try a smaller --gamma, or fewer --updates")
        about = {"run": str(run), "stage": name, "agent": policy.agent_name}
        paid = manifest["result"]["return"]["per_seed"]
        found += [
            {**about, "seed": seed, "estimate": float(value), "return": true}
            for seed, value, true in zip(policy.seeds, values, paid, strict=True)
        ]
    estimates, returns = (np.array([row[key] for row in found], np.float64) for key in ("estimate", "return"))
    agreement = spearman(estimates, returns)
    return {
        "gamma": gamma,
        "updates": updates,
        "spearman": None if np.isnan(agreement) else agreement,
        "regret": float(returns.max() - returns[estimates.argmax()]),
        "policies": sorted(found, key=lambda row: -row["estimate"]),
    }


def table(result: Json) -> list[str]:
    """The ranking in lines for a terminal."""
    rows = result["policies"]
    names = [f"{row['run']} {row['stage']} ({row['agent']}, seed {row['seed']})" for row in rows]
    width = max(map(len, names)) + 2
    lines = [f"{'':{width}}{'estimate':>10}{'return':>10}"]
    lines += [
        f"{name:{width}}{row['estimate']:>10.2f}{row['return']:>10.2f}" for name, row in zip(names, rows, strict=True)
    ]
    known = result["spearman"]
    agreement = "unknown: expected at least two that differ" if known is None else f"{known:.2f}"
    lines.append(f"rank correlation (Spearman) {agreement}; the first is {result['regret']:.2f} below the best")
    return lines
