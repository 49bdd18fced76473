"""How fast the toolkit is, as ratios to other libraries measured side by side in one run.

    python benchmarks/speed.py                     # a table
    python benchmarks/speed.py --json              # one JSON object on standard output
    python benchmarks/speed.py --only uniform_sampling_vs_sb3,sac_env_steps_vs_sb3

Both sides of a ratio run in turn, some seconds each, and the median of the ratios of neighbouring turns is reported,
so that a disturbance of the machine hits both. Only one side works at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from statistics import median
from subprocess import run
from time import perf_counter
from typing import Any

import torch
from peers import WORKLOADS as PEERS
from peers import d3rlpy_python
from worker import ACTION, BATCH, HIDDEN, OBS, ROWS, Worker

SECONDS = 2.0
# ratio: what stands above the line, what below
RATIOS = {
    "iql_1_seed_vs_d3rlpy": ("iql_1_seed", "d3rlpy_iql"),
    "iql_5_seeds_vs_d3rlpy": ("iql_5_seeds", "d3rlpy_iql"),
    "iql_10_seeds_vs_d3rlpy": ("iql_10_seeds", "d3rlpy_iql"),
    "cql_1_seed_vs_d3rlpy": ("cql_1_seed", "d3rlpy_cql"),
    "sac_env_steps_vs_sb3": ("sac_1_seed", "sb3_sac"),
    "sac_5_seeds_env_steps_vs_sb3": ("sac_5_seeds", "sb3_sac"),
    "uniform_sampling_vs_sb3": ("uniform_sampling", "sb3_uniform_sampling"),
    "mixed_vs_uniform_sampling": ("mixed_sampling", "uniform_sampling"),
    "goal_sampling_vs_sb3_her": ("goal_sampling", "sb3_goal_sampling"),
}


def main() -> None:
    options = parse()
    rates: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    versions: dict[str, dict[str, str]] = {}
    for name in options.only:
        sides = RATIOS[name]
        with start(sides[0], options.peers) as above, start(sides[1], options.peers) as below:
            for _ in range(options.rounds):
                pair = above.rate(SECONDS), below.rate(SECONDS)
                ratios.setdefault(name, []).append(pair[0] / pair[1])
                for side, rate in zip(sides, pair, strict=True):
                    rates.setdefault(side, []).append(rate)
            versions |= {library(worker.workload): worker.versions for worker in (above, below)}
        above_rate, below_rate = (median(rates[side]) for side in sides)
        line = f"{name:30} {median(ratios[name]):7.2f}   {above_rate:10,.0f} against {below_rate:8,.0f} a second"
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    result: dict[str, Any] = {name: round(median(values), 3) for name, values in ratios.items()}
    result["refusal_s"] = refusal()
    result["range"] = {name: [round(min(values), 3), round(max(values), 3)] for name, values in ratios.items()}
    result["per_second"] = {side: round(median(values), 1) for side, values in rates.items()}
    result["sizes"] = {"obs": OBS, "action": ACTION, "batch": BATCH, "hidden": HIDDEN, "transitions": ROWS}
    print(f"a mistake is refused in {result['refusal_s']} s", file=sys.stderr if options.json else sys.stdout)
    result["seed"], result["rounds"], result["seconds_a_turn"] = 0, options.rounds, SECONDS
    result["machine"], result["versions"] = machine(), versions
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))


def parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--only", default=",".join(RATIOS), help="ratios to measure, with commas between", type=names)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--peers", type=Path, help="folder for d3rlpy's environment; made there if it is missing")
    parser.add_argument("--out", type=Path, help="write the JSON object to this file too")
    return parser.parse_args()


def names(text: str) -> list[str]:
    unknown = [name for name in text.split(",") if name not in RATIOS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(RATIOS)}")
    return text.split(",")


def library(workload: str) -> str:
    return workload.partition("_")[0] if workload in PEERS else "toolkit"


def start(workload: str, peers: Path | None) -> Worker:
    python = d3rlpy_python(peers) if library(workload) == "d3rlpy" else Path(sys.executable)
    return Worker(python, "peers.py" if workload in PEERS else "ours.py", workload)


def refusal() -> float:
    """Seconds until a pipeline with a mistake is refused."""
    command = [sys.executable, "-m", "toolkit"]
    seconds = []
    for _ in range(5):
        began = perf_counter()
        run([*command, "pipeline", "smoke", "--set", "pretrain.config.expectil=0.9"], capture_output=True, check=False)
        seconds.append(perf_counter() - began)
    return round(median(seconds), 2)


def machine() -> dict[str, Any]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text()
        cpu = next((line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line), cpu)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": cores, "gpu": gpu, "load_after": round(load, 1), "system": platform.platform()}


if __name__ == "__main__":
    main()
