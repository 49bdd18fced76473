"""How busy an evaluation keeps the cores, and whether the number of processes changes any result.

    PYTHONPATH=. python benchmarks/evaluation.py            # 100 episodes in AntMaze with 1, 2 and 4 processes

The policy is a clone of the trot, trained for a moment. The share is that of the whole machine from the call to the
last result, the start of the processes included; for a quiet machine.
Writes benchmarks/results/evaluation.json; fails where a result differs, or the cores are less busy than they should be.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.evaluate import EvalResult, evaluate
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.summary import versions
from toolkit.policy import load_policy
from toolkit.tasks import load_card

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
TASK, LEAST = "antmaze-medium", 0.85
PIPELINE = f"""\
name: clone
description: A policy to evaluate
task: {TASK}
seeds: [0]
hidden: [256, 256]
stages:
  collect: {{kind: collect, recipe: ant-stitch, episodes: 60}}
  bc: {{kind: offline, agent: bc, updates: 1_000, eval_every: 1_000, final_episodes: 2}}
"""


def ticks() -> tuple[int, int]:
    """Ticks of all cores together since the machine started: busy ones, and all."""
    user, nice, system, idle, iowait, *others = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    busy = user + nice + system + sum(others)
    return busy, busy + idle + iowait


def same(one: EvalResult, other: EvalResult) -> bool:
    numbers = ("success", "ret", "discounted", "steps", "path_length", "shortest", "start_xy", "goal_xy", "task")
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="the whole result on standard output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clone.yaml")
        file.write_text(PIPELINE, encoding="utf-8")
        run_pipeline(file, out=Path(folder, "run"), progress="none")
        policy = load_policy(Path(folder, "run"))
    results, found = {}, {}
    for workers in (1, 2, 4):
        (busy, whole), began = ticks(), time.perf_counter()
        results[workers] = evaluate(policy.act, load_card(TASK), 1, arguments.episodes, workers=workers)
        wall, after = time.perf_counter() - began, ticks()
        found[workers] = {
            "wall_s": round(wall, 1),
            "steps_per_s": round(float(results[workers].steps.sum()) / wall, 1),
            "busy": round((after[0] - busy) / (after[1] - whole), 3),
            "equal": same(results[1], results[workers]),
        }
        print(f"{workers} processes: {found[workers]}", file=sys.stderr)
    cores = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {
        "task": TASK, "episodes": arguments.episodes, "cores": cores, "processes": found, "versions": versions()
    }  # fmt: skip
    if arguments.episodes == parser.get_default("episodes"):
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(result))
    if not all(each["equal"] for each in found.values()):
        sys.exit("the number of processes changed a result")
    if cores in found and found[cores]["busy"] < LEAST:
        sys.exit(f"the cores were busy for {found[cores]['busy']:.0%} of the time, less than {LEAST:.0%}")


if __name__ == "__main__":
    main()
