"""A guarded pipeline: what a roll-back leaves in the files; stopped around one, it ends in the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kill9 import differences, fingerprint
from toolkit.checkpoint import load
from toolkit.evaluate import EvalResult
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.watch import Watch
from toolkit.types import ToolkitError

pytestmark = pytest.mark.timeout(600)

PIPELINE = """\
name: guarded
task: pointmaze-umaze
seeds: [3, 5]
stages:
  collect: {kind: collect, recipe: stitch, episodes: 40, workers: 1}
  pretrain: {kind: offline, agent: bc, updates: 20, batch_size: 32, config: {hidden: [16]}, compile: "off",
             final_episodes: 1}
  finetune: {kind: online, agent: sac, start: pretrain, batch_size: 32, config: {hidden: [16]}, compile: "off",
             guard: {over: 1}, env_steps: 160, warmup_steps: 20, eval_every: 40, eval_episodes: 1, final_episodes: 1,
             log_every: 20, checkpoint_every_s: 0.01}
"""
# success of the two seeds, as the guard is told: seed 3 falls twice, the second time at the end
TOLD = {0: [0.5, 0.5], 40: [0.9, 0.6], 80: [0.1, 0.6], 120: [0.8, 0.7], 160: [0.2, 0.6]}
_rolled_back = Watch._rolled_back


def told(self: Watch, step: int, result: EvalResult) -> bool:
    if self.guard is None:
        return False
    success = np.asarray(TOLD[step])[:, None] + np.zeros_like(result.success)
    return _rolled_back(self, step, replace(result, success=success))


def killed_at(step: int) -> Any:
    """The process dies before the guard hears of the evaluation at a step."""

    def judge(self: Watch, at: int, result: EvalResult) -> bool:
        if self.guard and at == step:
            raise RuntimeError("killed")
        return told(self, at, result)

    return judge


def stopped_at(step: int) -> Any:
    """The process is asked to stop when the guard has acted."""

    def judge(self: Watch, at: int, result: EvalResult) -> bool:
        found = told(self, at, result)
        if self.guard and at == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    return judge


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pipeline") / "guarded.yaml"
    file.write_text(PIPELINE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def whole(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watch, "_rolled_back", told)
        run_pipeline(pipeline, out=run, progress="none")
    return run


def test_every_intervention_is_on_record(whole: Path) -> None:
    stage = whole / "stages/finetune"
    lines = json.loads((whole / "summary.json").read_text())["stages"]["finetune"]["guard"]
    assert [(line["step"], line["seed"], line["best_step"]) for line in lines] == [(80, 3, 40), (160, 3, 40)]
    assert [line["lr_policy"] for line in lines] == pytest.approx([0.2, 0.04])
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "guard/lr_policy" in row] == [80, 160]
    assert [row["step"] for row in rows if "eval/success" in row] == [0, 40, 80, 120, 160, 160]  # again, rolled back
    share = {row["step"]: row["offline_share"] for row in rows if "offline_share" in row}
    assert share[80] == [0.5, 0.5]
    assert share[100] == [0.75, 0.5]
    assert all("action_distance" in row for row in rows if "eval/success" in row)
    assert "went back to step 40" in (whole / "report.html").read_text()
    tensors, meta = load(stage / "checkpoint")
    assert meta["guard"]["log"] == lines
    assert (tensors["agent/pi/p/w0"][0] == tensors["guard/pi/p/w0"][0]).all()  # it ends as it was at its best
    assert (tensors["agent/pi/p/w0"][1] != tensors["guard/pi/p/w0"][1]).any()


@pytest.mark.parametrize(
    ("judge", "raised"), [(killed_at(120), RuntimeError), (stopped_at(80), SystemExit), (stopped_at(160), SystemExit)]
)
def test_stopped_around_a_roll_back_it_ends_in_the_same_bytes(
    judge: Any,
    raised: type[BaseException],
    pipeline: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "stages/finetune")
    monkeypatch.setattr(Watch, "_rolled_back", judge)
    with pytest.raises(raised):
        run_pipeline(pipeline, out=run, progress="none")
    monkeypatch.setattr(Watch, "_rolled_back", told)
    run_pipeline(pipeline, out=run, progress="none")
    assert differences(fingerprint(whole), fingerprint(run)) == []


def test_a_guard_that_has_nothing_to_do_changes_nothing(pipeline: Path, whole: Path, tmp_path: Path) -> None:
    """Success is 0 or 1 from one episode; a fall of more than 0.9 over two evaluations does not happen by accident."""
    found = []
    for guard in ("null", "{drop: 0.99, over: 5}"):
        run = Path(shutil.copytree(whole, tmp_path / guard[:4]))
        run_pipeline(pipeline, out=run, overrides=[f"finetune.guard={guard}"], progress="none")
        tensors, _ = load(run / "stages/finetune/checkpoint")
        found.append(({k: v for k, v in tensors.items() if "guard" not in k}, run / "stages/finetune/metrics.jsonl"))
    assert found[0][0].keys() == found[1][0].keys()
    assert all((leaf == found[1][0][name]).all() for name, leaf in found[0][0].items())
    assert found[0][1].read_bytes() == found[1][1].read_bytes()


def test_a_guard_that_has_nothing_to_go_by_is_refused(pipeline: Path, tmp_path: Path) -> None:
    for overrides, message in (
        (["finetune.guard={drop: 1.5}"], "less than 1"),
        (["finetune.agent=gae", "finetune.seam={data: drop}"], "finetune.guard: gae learns from its newest rollout"),
    ):
        with pytest.raises(ToolkitError, match=message):
            run_pipeline(pipeline, out=tmp_path / "run", overrides=overrides, dry_run=True)
