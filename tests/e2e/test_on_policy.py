"""An on-policy stage in a whole pipeline: from a cloned policy, killed in the middle, to the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from benchmarks.kill9 import differences, fingerprint
from tests.e2e.test_pipeline import killed
from toolkit.checkpoint import load
from toolkit.pipeline.runner import run_pipeline
from toolkit.types import ToolkitError

pytestmark = pytest.mark.timeout(300)

PIPELINE = """\
name: rungs
description: Practice alone
task: pointmaze-umaze
seeds: [3, 5]
hidden: [16]
stages:
  collect: {kind: collect, recipe: stitch, episodes: 20, workers: 1}
  clone: {kind: offline, agent: bc, updates: 40, batch_size: 32, compile: "off", final_episodes: 2, log_every: 20}
  practise: {kind: online, agent: gae, start: clone, seam: {data: drop}, compile: "off", rollout: 32, envs: 2,
             critic_steps: 128, env_steps: 400, eval_every: 150, eval_episodes: 1, final_episodes: 2, log_every: 100,
             checkpoint_every_s: 0.02}
"""


def test_an_on_policy_stage_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    file, run = tmp_path / "rungs.yaml", tmp_path / "run"
    file.write_text(PIPELINE, encoding="utf-8")
    run_pipeline(file, out=run, progress="none")
    rows = [json.loads(line) for line in (run / "stages/practise/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/success" in row] == [0, 150, 300, 400]
    updates = [row for row in rows if "loss/V" in row]
    assert [row["step"] for row in updates] == [128, 256, 320]  # the first since each multiple of log_every
    assert ["loss/pi" in row for row in updates] == [False, True, True]
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.rmtree(copy / "stages/practise")
    with pytest.raises(SystemExit), killed(copy, "practise", signal.SIGTERM):
        run_pipeline(file, out=copy, progress="none")
    assert not (copy / "stages/practise/manifest.json").exists()
    run_pipeline(file, out=copy, progress="none")
    assert differences(fingerprint(run), fingerprint(copy)) == []


def test_rollouts_that_cannot_teach_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    file, run = tmp_path / "rungs.yaml", tmp_path / "run"
    file.write_text(PIPELINE, encoding="utf-8")
    for overrides, message in {
        ("practise.agent=reinforce", "practise.critic_steps=0"): r"practise\.rollout: reinforce .* whole episodes",
        (
            "practise.env_steps=60",
            "practise.critic_steps=0",
        ): r"practise\.env_steps: expected at least one rollout, 32 steps of 2 environments",
    }.items():
        with pytest.raises(ToolkitError, match=message):
            run_pipeline(file, out=run, overrides=list(overrides), progress="none")
        assert not run.exists()


@pytest.mark.parametrize("agent", ["reinforce_baseline", "actor_critic_q"])
def test_other_rungs_from_scratch(agent: str, tmp_path: Path) -> None:
    lines = [line for line in PIPELINE.splitlines() if "collect:" not in line and "clone:" not in line]
    text = "\n".join(lines).replace("start: clone, seam: {data: drop}, ", "").replace("critic_steps: 128, ", "")
    (tmp_path / "rungs.yaml").write_text(text.replace("rollout: 32, ", "").replace("agent: gae", f"agent: {agent}"))
    overrides = ["practise.env_steps=450"]  # one rollout of the longest episode, 220 steps of 2 environments
    run_pipeline(tmp_path / "rungs.yaml", out=tmp_path / "run", overrides=overrides, progress="none")
    tensors, _ = load(tmp_path / "run/stages/practise/checkpoint")
    assert torch.equal(tensors["agent/pi/t"], torch.ones(2))
