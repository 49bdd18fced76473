"""What a run's summary says of its stages and calls its baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.pipeline.plan import make_plan
from toolkit.pipeline.summary import summarise_run
from toolkit.stats import success_summary
from toolkit.types import Json

HEAD = """\
name: baselines
task: pointmaze-umaze
seeds: [0]
stages:
  collect: {kind: collect, recipe: stitch, episodes: 20}
"""


def summary(path: Path, *stages: str) -> Json:
    """Of a pipeline whose stages all came to the same."""
    path.write_text(HEAD + "".join(f"  {stage}\n" for stage in stages))
    plan = make_plan(path)
    score = success_summary(np.ones((1, 10)))
    result = {"success": score, "return": score, "path_ratio": 1.2}
    manifests = {
        name: {
            "kind": stage.kind,
            "config": plan.resolved["stages"][name],
            "wall_s": 1.0,
            "peak_rss_mb": 1.0,
            "result": {} if name == "collect" else result,
        }
        for name, stage in plan.spec.stages.items()
    }
    return summarise_run(plan, manifests, 1.0)


def test_baselines_of_one_agent_are_all_kept_and_told_apart(tmp_path: Path) -> None:
    found = summary(
        tmp_path / "pipeline.yaml",
        "second: {kind: offline, agent: bc, updates: 100}",
        "bc: {kind: offline, agent: bc, updates: 100}",
        "awr: {kind: offline, agent: bc, updates: 100}",
        "weighted: {kind: offline, agent: awr, updates: 100}",
        "filtered: {kind: offline, agent: filtered_bc, updates: 100}",
        "mild: {kind: offline, agent: cql, updates: 100}",
        "pretrain: {kind: offline, agent: cql, updates: 100}",
        "finetune: {kind: online, agent: cql, start: pretrain, env_steps: 100}",
    )
    called = {label: entry["stage"] for label, entry in found["baselines"].items()}
    assert called == {
        "second": "second", "bc": "bc", "awr": "awr", "weighted": "weighted", "filtered_bc": "filtered", "mild": "mild",
    }  # fmt: skip
    assert found["stages"]["finetune"]["start"] == "pretrain"
    assert "start" not in found["stages"]["pretrain"]


def test_nothing_is_a_baseline_where_nothing_goes_on(tmp_path: Path) -> None:
    found = summary(
        tmp_path / "pipeline.yaml",
        "bc: {kind: offline, agent: bc, updates: 100}",
        "rlpd: {kind: online, agent: rlpd, env_steps: 100}",
    )
    assert found["baselines"] == {}
    assert "start" not in found["stages"]["rlpd"]
