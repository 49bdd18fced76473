"""Kill -9 at random moments of a whole pipeline, run the same command again, and compare every byte it leaves.

    python benchmarks/kill9.py --kills 20 --json

One run goes through undisturbed. Each further run is killed once, at a moment drawn from its own share of the
undisturbed run's time, so that the kills spread over start, all stages and the end; then the same command finishes it.
A moment is a stage and a share of it: of its lines of metrics where it writes any, of its seconds elsewhere, so that
it means the same on a machine that is busy by then.
Compared are the newest checkpoint of each stage (weights, optimiser, ring buffer, counters), metrics, the data set,
pictures and results. Writes benchmarks/results/kill9.json, unless another number is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PIPELINE = """\
name: kill9
description: Every kind of stage, small
task: pointmaze-umaze
seeds: [0, 1]
stages:
  collect: {kind: collect, recipe: stitch, episodes: 200}
  clone: {kind: offline, agent: filtered_bc, updates: 300, batch_size: 64, config: {hidden: [64, 64]},
          compile: "off", final_episodes: 4, starts: far, log_every: 50, checkpoint_every_s: 0.4}
  pretrain: {kind: offline, agent: iql, updates: 1500, n_step: 10, config: {hidden: [64, 64]}, compile: "on",
             eval_every: 300, eval_episodes: 4, final_episodes: 8, starts: far, log_every: 50, checkpoint_every_s: 0.4}
  finetune: {kind: online, agent: sac, start: pretrain, config: {hidden: [64, 64]}, compile: "on",
             seam: {temperature: 0.05, mix: {kind: proportional}}, env_steps: 900, envs: 2, utd: 2, warmup_steps: 100,
             buffer_capacity: 400, eval_every: 200, eval_episodes: 4, final_episodes: 8, starts: far, log_every: 50,
             checkpoint_every_s: 0.4}
  evaluate: {kind: evaluate, of: [clone, pretrain, finetune], episodes: 10, starts: far}
"""
STAGES = ["collect", "clone", "pretrain", "finetune", "evaluate"]
RESULTS = Path(__file__).parent / "results" / "kill9.json"


def fingerprint(run: Path) -> dict[str, str]:
    """What a run came to: sha256 of everything that must not depend on how often it was stopped."""
    found = {}
    for path in sorted((run / "data").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(run))] = _sha256(path.read_bytes())
    for stage in sorted((run / "stages").iterdir()):
        for name in ("metrics.jsonl", "routes.json", "pieces.json"):
            if (stage / name).exists():
                found[f"{stage.name}/{name}"] = _sha256((stage / name).read_bytes())
        numbered = sorted((stage / "checkpoint").glob("[0-9]*"), key=lambda path: int(path.name))
        for name in ("tensors.safetensors", "meta.json") if numbered else ():
            found[f"{stage.name}/checkpoint/{name}"] = _sha256((numbered[-1] / name).read_bytes())
        manifest = json.loads((stage / "manifest.json").read_text())
        found[f"{stage.name}/result"] = _sha256(json.dumps(manifest["result"], sort_keys=True).encode())
    return found


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of what is not equal."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _start(pipeline: Path, run: Path) -> subprocess.Popen[bytes]:
    """The command a user types, in a process group of its own."""
    command = [sys.executable, "-m", "toolkit", "pipeline", str(pipeline)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.Popen(
        [*command, "--out", str(run), "--progress", "plain"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=open(run.with_suffix(".log"), "ab"),
        start_new_session=True,
    )


def _finish(pipeline: Path, run: Path) -> float:
    """Run to the end; seconds it took. Raises where the command fails."""
    begun = time.monotonic()
    code = _start(pipeline, run).wait()
    if code != 0:
        raise RuntimeError(f"{run} ended with {code}:\n{run.with_suffix('.log').read_text()[-2000:]}")
    return time.monotonic() - begun


def _phase(run: Path) -> str:
    """What an interrupted run was at."""
    open_stages = [name for name in STAGES if not (run / "stages" / name / "manifest.json").exists()]
    if not open_stages:
        return "end"
    begun = (run / "stages" / open_stages[0]).exists()
    return open_stages[0] if begun else f"before {open_stages[0]}"


def _left_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _timeline(run: Path, begun: float, ended: float) -> list[tuple[str, float]]:
    """Seconds each part of the undisturbed run took: the stages, and what comes before and after them."""
    manifests = [run / "stages" / name / "manifest.json" for name in STAGES]
    at = [begun, manifests[0].stat().st_mtime - json.loads(manifests[0].read_text())["wall_s"]]
    at += [manifest.stat().st_mtime for manifest in manifests] + [ended]
    return [(name, after - before) for name, before, after in zip(["start", *STAGES, "end"], at, at[1:], strict=False)]


def _moment(timeline: list[tuple[str, float]], seconds: float) -> tuple[str, float]:
    """Which part of the timeline a moment lies in, and the share of that part gone by then."""
    for name, length in timeline:
        if seconds < length:
            return name, seconds / length
        seconds -= length
    return timeline[-1][0], 1.0


def _lines(run: Path, stage: str) -> int:
    metrics = run / "stages" / stage / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def _reached(run: Path, stage: str) -> bool:
    if stage == "end":
        return (run / "stages" / STAGES[-1] / "manifest.json").exists()
    return stage == "start" or (run / "stages" / stage).exists()


def _killed(
    pipeline: Path, run: Path, whole: Path, stage: str, share: float, length: float, expected: dict[str, str]
) -> dict[str, Any]:
    """One run, killed `share` of the way through a stage of `length` seconds, and finished by the same command."""
    lines = int(share * _lines(whole, stage))
    process = _start(pipeline, run)
    while not (_reached(run, stage) and _lines(run, stage) >= lines) and process.poll() is None:
        time.sleep(0.002)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(share if lines else share * length)
    process.send_signal(signal.SIGKILL)  # the one process: nobody helps its children to their end
    killed = process.wait() == -signal.SIGKILL  # it may have come to its end just before
    at = _phase(run)
    deadline = time.monotonic() + 10.0
    while _left_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    orphans = _left_alive(process.pid)
    seconds = _finish(pipeline, run)
    unequal = differences(expected, fingerprint(run))
    return {"aimed_at": stage, "share": round(share, 3), "killed": killed, "was_at": at,
            "resumed_s": round(seconds, 1), "orphans": orphans, "equal": not unequal, "different": unequal}  # fmt: skip


def measure(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """The undisturbed run, then the killed ones."""
    pipeline = folder / "kill9.yaml"
    pipeline.write_text(PIPELINE, encoding="utf-8")
    _finish(pipeline, folder / "warm")  # fills the caches of compiled code, so that the next one's time is typical
    begun = time.time()
    seconds = _finish(pipeline, folder / "whole")
    timeline = _timeline(folder / "whole", begun, time.time())
    expected = fingerprint(folder / "whole")
    again = differences(expected, fingerprint(folder / "warm"))
    lots, runs = random.Random(seed), []
    for index in range(kills):
        stage, share = _moment(timeline, seconds * (index + lots.random()) / kills)
        length = dict(timeline)[stage]
        run = _killed(pipeline, folder / f"killed-{index}", folder / "whole", stage, share, length, expected)
        runs.append(run)
        print(f"{index + 1}/{kills}: {run}", file=sys.stderr, flush=True)
    return {
        "kills": kills,
        "killed": sum(run["killed"] for run in runs),
        "equal": sum(run["equal"] for run in runs),
        "orphans": sum(run["orphans"] for run in runs),
        "two_whole_runs_equal": not again,
        "whole_run_s": round(seconds, 1),
        "seconds_of_each_part": {name: round(length, 1) for name, length in timeline},
        "files_compared": len(expected),
        "runs": runs,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill9-") as folder:
        result = measure(arguments.kills, arguments.seed, Path(folder))
    if arguments.kills == parser.get_default("kills"):
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    words = f"{result['killed']} of {result['kills']} killed before their end, {result['equal']} byte-equal"
    print(json.dumps(result) if arguments.json else words)
    raise SystemExit(0 if result["equal"] == result["kills"] else 1)


if __name__ == "__main__":
    main()
