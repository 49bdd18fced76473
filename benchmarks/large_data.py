"""How fast a recording that memory does not hold trains, beside one that it holds.

    PYTHONPATH=. python benchmarks/large_data.py                    # eight million transitions, ten minutes
    PYTHONPATH=. python benchmarks/large_data.py --transitions 200_000 --cap 4 --rounds 1    # does it run at all?

IQL's offline loop on random numbers as HalfCheetah has them, three seeds: all in memory, and passing through a window
of 500,000 rows in a process that may not allocate more than `--cap` GiB, in which the first is shown to fail. Both take
turns of some seconds. Writes benchmarks/results/large-data.json; fails where the second has less than half the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from worker import HIDDEN, Run, Worker, serve

from toolkit.data.columns import columns
from toolkit.data.exporters import to_minari
from toolkit.learner import Learner
from toolkit.pipeline.material import Material, make_agent, prepare, task_sizes
from toolkit.pipeline.spec import OfflineStage
from toolkit.pipeline.windowed import prepare_window
from toolkit.tasks import load_card
from toolkit.train import Hooks, OfflinePlan, offline_loop
from toolkit.types import Episodes

RESULTS = Path(__file__).parent / "results" / "large-data.json"
TASK, EPISODE, SEEDS, ROWS, SECONDS = "halfcheetah", 1000, [0, 1, 2], 500_000, 5.0
UPDATES = 32  # made at a time
FOLDER, CAP = "LARGE_DATA_FOLDER", "LARGE_DATA_CAP"  # of the environment of a measured process


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        os.environ[FOLDER] = str(record(Path(folder), options.transitions))
        begun = time.monotonic()
        columns(Path(os.environ[FOLDER]))
        result: dict[str, Any] = {"transitions": options.transitions, "window_rows": ROWS, "cap_gib": options.cap}
        result |= {"making_columns_s": round(time.monotonic() - begun, 1)}
        os.environ[CAP] = str(options.cap)
        result["in_memory_under_the_cap"] = "runs" if lives("whole") else "out of memory"
        with Worker(Path(sys.executable), Path(__file__).name, "window") as window:
            os.environ[CAP] = ""
            with Worker(Path(sys.executable), Path(__file__).name, "whole") as whole:
                rates = [(window.rate(SECONDS), whole.rate(SECONDS)) for _ in range(options.rounds)]
                peaks = {side.workload: peak(side) for side in (window, whole)}
    ratios = [passing / held for passing, held in rates]
    result |= {
        "window_vs_whole": round(median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seed_updates_per_s": {"window": median(r[0] for r in rates), "whole": median(r[1] for r in rates)},
        "peak_memory_mb": peaks,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.transitions == parse([]).transitions:
        RESULTS.write_text(text + "\n", encoding="utf-8")
        if median(ratios) < 0.5 or result["in_memory_under_the_cap"] == "runs":
            sys.exit("expected at least half the rate, and a recording that the capped process cannot hold")


def parse(arguments: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transitions", type=lambda text: int(text.replace("_", "")), default=8_000_000)
    parser.add_argument("--cap", type=float, default=1.5, help="GiB that the second process may allocate")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", help="where the recording lies meanwhile, on a disk")
    return parser.parse_args(arguments)


def record(folder: Path, transitions: int) -> Path:
    """A Minari data set of random numbers; the returns of its episodes differ."""
    sizes = task_sizes(load_card(TASK))
    rng = np.random.Generator(np.random.SFC64(0))

    def parts() -> Iterator[Episodes]:
        left = transitions // EPISODE
        while left:
            count = min(left, 100)
            left -= count
            starts = np.arange(count + 1) * (EPISODE + 1)
            R = int(starts[-1])
            nothing, ends = np.zeros((R, 0), np.float32), np.zeros(R, np.bool_)
            ends[starts[1:] - 2] = True
            numbers = [rng.standard_normal((R, width), np.float32) for width in (sizes.obs_dim, sizes.action_dim, 1)]
            action, reward = np.tanh(numbers[1]), numbers[2][:, 0]
            yield Episodes(numbers[0], nothing, nothing, action, reward, np.zeros(R, np.bool_), ends, starts)

    return to_minari(parts(), "random/large-v0", folder, env_spec=None, metadata={})


def lives(workload: str) -> bool:
    try:
        with Worker(Path(sys.executable), Path(__file__).name, workload):
            return True
    except SystemExit as error:
        if "memory" in str(error).lower() or "allocate" in str(error).lower():
            return False
        raise


def peak(worker: Worker) -> int:
    """MB of memory that the process has had at most."""
    status = Path(f"/proc/{worker._process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def run(window: bool) -> Run:
    """Seed-updates of the offline loop."""
    if cap := os.environ[CAP]:
        resource.setrlimit(resource.RLIMIT_DATA, (int(float(cap) * 2**30),) * 2)
    card, folder = load_card(TASK), Path(os.environ[FOLDER])
    agent = make_agent("iql", {"hidden": list(HIDDEN)}, task_sizes(card))
    stage = OfflineStage(kind="offline", agent="iql", updates=1)
    material: Material
    if window:
        material = prepare_window(card, columns(folder), agent, stage, ROWS)
    else:
        material = prepare(card, folder, agent, stage.gamma)
    data = material.replay
    assert data is not None
    learner = Learner(agent, SEEDS, updates=1_000_000)
    done = 1

    def step() -> float:
        nonlocal done
        plan = OfflinePlan(done + UPDATES, 256, 1, stage.gamma, "constant", log_every=1000, eval_every=1 << 40)
        offline_loop(learner, data, material.normalizer, plan, Hooks(), begin=done)
        done += UPDATES
        return UPDATES * len(SEEDS)

    return step


if __name__ == "__main__":
    if FOLDER in os.environ:
        serve({"window": lambda: run(True), "whole": lambda: run(False)}, ("torch",))
    else:
        main()
