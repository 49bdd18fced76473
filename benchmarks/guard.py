"""Whether the guard saves a run whose policy learns thirty times too fast after the switch.

    PYTHONPATH=. python benchmarks/guard.py                     # PointMaze Medium, 3 seeds; a quarter of an hour
    PYTHONPATH=. python benchmarks/guard.py --tiny                 # does it run at all?
    PYTHONPATH=. python benchmarks/guard.py --out runs/guard       # keeps the run folders and their reports

The same recording and pretraining, then three times online: healthy, with thirty times the policy's learning rate, and
with that and the guard. Writes benchmarks/results/guard.json; fails where the guarded run ends more than 0.05 below the
healthy one, or nothing collapsed without the guard.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from toolkit.log import read_metrics
from toolkit.pipeline.runner import run_pipeline
from toolkit.stats import iqm

RESULTS = Path(__file__).parent / "results" / "guard.json"
RATE, TIMES = 3e-5, 30
PIPELINE = f"""\
name: guard
description: The switch of the main job, to be ruined and guarded
task: pointmaze-medium
seeds: [0, 1, 2]
hidden: [128, 128]
stages:
  collect: {{kind: collect, recipe: stitch}}
  pretrain:
    kind: offline
    agent: iql
    config: {{expectile: 0.9, beta: 5.0, lr: 2e-3, polyak: 0.02}}
    updates: 8_000
    n_step: 20
    gamma: 0.995
    lr_schedule: cosine
    starts: far
  finetune:
    kind: online
    agent: sac
    config: {{lr: 1e-3, lr_policy: {RATE}, polyak: 0.02, entropy_backup: false, target_entropy: -4.0}}
    start: pretrain
    seam:
      optimizer: reset
      temperature: 0.02
      mix: {{kind: annealed, offline: 0.5, offline_end: 0.25, over_steps: 8_000}}
    env_steps: 12_000
    envs: 2
    n_step: 5
    gamma: 0.995
    warmup_steps: 500
    critic_steps: 2_000
    starts: far
"""
FAST = f"finetune.config.lr_policy={TIMES * RATE:g}"
VARIANTS = {
    "healthy": [],
    "ruined": [FAST],
    "guarded": [FAST, "finetune.guard={drop: 0.1}"],
}
TINY = [
    "task=pointmaze-umaze", "seeds=[0, 1]", "hidden=[16]", "collect.episodes=40", "pretrain.updates=20",
    "pretrain.final_episodes=1", "finetune.env_steps=60", "finetune.warmup_steps=20", "finetune.critic_steps=10",
    "finetune.eval_every=20", "finetune.eval_episodes=1", "finetune.final_episodes=1", "finetune.batch_size=16",
    "pretrain.starts=all", "finetune.starts=all",
]  # fmt: skip


def measure(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The three runs; the later two take over what the first has recorded and pretrained."""
    file = folder / "guard.yaml"
    file.write_text(PIPELINE, encoding="utf-8")
    found: dict[str, Any] = {}
    for name, changes in VARIANTS.items():
        run = folder / name
        if name != "healthy" and not run.exists():
            shutil.copytree(folder / "healthy", run)
        summary = run_pipeline(file, out=run, overrides=[*overrides, *changes], progress="plain")
        stage = summary["stages"]["finetune"]
        rows = [row for row in read_metrics(run / "stages/finetune/metrics.jsonl") if "eval/success" in row]
        found[name] = {
            "before": summary["switch"]["before"],
            "success": stage["success"],
            "lowest": min(float(iqm(row["eval/success"])) for row in rows),
            "switch": stage["switch"],
            "guard": stage.get("guard", []),
            "wall_s": stage["wall_s"],
        }
    below = found["healthy"]["success"]["iqm"] - found["guarded"]["success"]["iqm"]
    return {"times": TIMES, "overrides": overrides, **found, "guarded_below_healthy": below}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="seconds; its numbers mean nothing and are not kept")
    parser.add_argument("--task", help="another task card than pointmaze-medium")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    overrides = TINY if arguments.tiny else [f"task={arguments.task}"] if arguments.task else []
    with tempfile.TemporaryDirectory(prefix="guard-") as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(folder, overrides)
    print(json.dumps(result, indent=1))
    if arguments.tiny:
        return
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    collapsed = result["ruined"]["lowest"] < result["healthy"]["before"] - 0.2
    raise SystemExit(0 if collapsed and result["guarded_below_healthy"] <= 0.05 else 1)


if __name__ == "__main__":
    main()
