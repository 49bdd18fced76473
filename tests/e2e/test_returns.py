"""A pipeline on a task that does not say what success is: it speaks of returns, and goes on as exactly as any."""

from __future__ import annotations

import json
import math
import re
import signal
from pathlib import Path

import pytest
from test_pipeline import killed

from benchmarks.kill9 import differences, fingerprint
from toolkit.assess import evaluate_run, table
from toolkit.log import read_metrics
from toolkit.pipeline.runner import run_pipeline
from toolkit.types import ToolkitError

pytestmark = pytest.mark.timeout(300)

PIPELINE = """\
name: swing
task: pendulum
seeds: [3, 5]
stages:
  collect: {kind: collect, recipe: random, episodes: 6, workers: 1}
  clone: {kind: offline, agent: filtered_bc, updates: 20, batch_size: 32, config: {hidden: [16], by: return},
          compile: "off", final_episodes: 2, log_every: 10}
  pretrain: {kind: offline, agent: iql, updates: 40, batch_size: 32, config: {hidden: [16]}, compile: "off",
             eval_every: 20, eval_episodes: 1, final_episodes: 2, log_every: 10}
  finetune: {kind: online, agent: sac, start: pretrain, batch_size: 32, config: {hidden: [16]}, compile: "off",
             seam: {temperature: 0.05}, env_steps: 260, envs: 2, warmup_steps: 60, eval_every: 100, eval_episodes: 1,
             final_episodes: 2, log_every: 20, checkpoint_every_s: 0.05}
  evaluate: {kind: evaluate, of: [pretrain, finetune], episodes: 2}
"""


def test_a_task_without_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run = tmp_path / "swing.yaml", tmp_path / "run"
    file.write_text(PIPELINE, encoding="utf-8")
    with pytest.raises(ToolkitError, match=r"clone\.config\.by: .*expected return, got success"):
        run_pipeline(file, out=run, overrides=["clone.config.by=success"], progress="none")
    with pytest.raises(ToolkitError, match="needs a maze"):
        run_pipeline(file, out=run, overrides=["collect.recipe=stitch"], progress="none")
    assert not run.exists()
    summary = run_pipeline(file, out=run, progress="plain")
    assert "NaN" not in (run / "summary.json").read_text()
    for name in ("clone", "pretrain", "finetune", "evaluate"):
        stage = summary["stages"][name]
        assert stage["success"] is stage["path_ratio"] is stage["steps_to_goal"] is None
        assert len(stage["return"]["per_seed"]) == 2
        assert -2000 < stage["return"]["iqm"] < 0
    assert summary["switch"]["before"] < 0 <= summary["switch"]["dip"]
    assert summary["return_range"] is None
    assert summary["baselines"]["filtered_bc"]["return"] == summary["stages"]["clone"]["return"]
    assert "coverage" not in summary["stages"]["collect"]
    told = capsys.readouterr().err
    assert re.search(r"pretrain: done in .*: return -", told)
    assert re.search(r"\n +return +95 % interval +per seed", told)
    assert re.search(r"finetune +-?[\d,]+", told)
    for row in read_metrics(run / "stages/finetune/metrics.jsonl"):
        if "eval/return" in row:
            assert all(math.isnan(value) for value in row["eval/success"])
            pairs = zip(row["true_return"], row["eval/return"], strict=True)
            assert all(returned < discounted < 0 for discounted, returned in pairs)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Return at the end, stage evaluate" in " ".join(page.split()) and "The switch" in page
    assert "Success" not in re.sub(r"<(style|script)>.*?</\1>|<pre.*?</pre>", "", page, flags=re.S)
    measured = evaluate_run(run, episodes=2, workers=1, out=tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["success"]["iqm"] is None
    assert measured["return"]["iqm"] == summary["stages"]["finetune"]["return"]["iqm"]
    assert re.search(r"success +- +- to - +- -", "\n".join(table(measured)))
    with pytest.raises(ToolkitError, match="does not say what success is"):
        evaluate_run(run, episodes=2, workers=1, until_ci=0.1)

    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt), killed(again, "finetune", signal.SIGINT):
        run_pipeline(file, out=again, progress="none")
    run_pipeline(file, out=again, progress="none")
    assert differences(fingerprint(run), fingerprint(again)) == []
