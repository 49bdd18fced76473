"""How often each scripted controller does its task without noise, and how fast episodes are collected.

    PYTHONPATH=. python benchmarks/controllers.py            # 100 episodes each, seven minutes
    PYTHONPATH=. python benchmarks/controllers.py --json

Start and goal are drawn as the task draws them, or in a maze as `navigate` does. Speed is steps a second of `collect`
with a worker on each core, over the simulator's own steps a second on one core times the cores; for a quiet machine.
Writes benchmarks/results/controllers.json; fails where a controller does its task less often than it should.
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

import gymnasium
import gymnasium_robotics
import numpy as np

from toolkit.collect import collect
from toolkit.config import dump
from toolkit.controllers import Recipe, load_recipe
from toolkit.pipeline.summary import versions
from toolkit.recorder import Recorder
from toolkit.tasks import load_card, make_env

gymnasium.register_envs(gymnasium_robotics)
RESULTS = Path(__file__).parent / "results" / "controllers.json"
LEAST = {
    ("pointmaze-umaze", "navigate"): 1.0,
    ("pointmaze-medium", "navigate"): 1.0,
    ("pointmaze-large", "navigate"): 1.0,
    ("pointmaze-giant", "navigate"): 1.0,
    ("antmaze-umaze", "ant-navigate"): 0.9,
    ("antmaze-medium", "ant-navigate"): 0.85,
    ("antmaze-large", "ant-navigate"): 0.8,
    ("fetch-reach", "arm"): 1.0,
    ("fetch-push", "arm"): 0.95,
    ("fetch-pick-and-place", "arm"): 0.95,
    ("fetch-slide", "arm"): 0.6,
    ("kitchen-microwave-light-slide", "kitchen"): 0.8,
}


def success(task: str, recipe: str, episodes: int) -> dict[str, float]:
    """Share of the episodes that end in success, and their mean steps."""
    card = load_card(task)
    quiet = Recipe.model_validate(
        {**dump(load_recipe(recipe)), "noise": {"kind": "none"}, "max_episode_steps": card.max_episode_steps}
    )
    found, _ = Recorder(quiet, make_env(card), 0).block(0, episodes)
    steps = [len(episode.rewards) for episode in found if episode.terminations[-1]]
    return {"success": len(steps) / episodes, "steps": float(np.mean(steps))}


def collected_share(task: str, recipe: str, episodes: int) -> float:
    """Steps a second of `collect` on all cores, as a share of the bare simulator's times the cores."""
    card, cores = load_card(task), len(os.sched_getaffinity(0))
    env: Any = gymnasium.make(card.env_id, **card.env_kwargs).unwrapped
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, env.action_space.dtype)
    began, bare = time.perf_counter(), 0
    while time.perf_counter() - began < 2.0:
        for _ in range(100):
            env.step(action)
        bare += 100
    bare_rate = bare / (time.perf_counter() - began)
    plan = Recipe.model_validate({**dump(load_recipe(recipe)), "episodes": episodes})
    marks: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = collect(plan, card, Path(folder), 0, cores, lambda done, _: marks.append((done, time.perf_counter())))
        rows = json.loads((out / "data" / "metadata.json").read_text())["total_steps"]
    # between first and last block: how long the workers take to start does not depend on the episodes
    (first, start), (last, stop) = marks[0], marks[-1]
    return rows * (last - first) / episodes / (stop - start) / (bare_rate * cores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="the whole result on standard output")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"episodes": arguments.episodes, "tasks": {}, "versions": versions()}
    for (task, recipe), least in LEAST.items():
        result["tasks"][task] = found = {**success(task, recipe, arguments.episodes), "least": least}
        print(f"{task:30} {found['success']:.2f} of {least:.2f} wanted, {found['steps']:.0f} steps", file=sys.stderr)
    speeds = {"pointmaze-medium": ("stitch", 5_000), "fetch-push": ("arm", 400)}
    result["collection_vs_bare_steps"] = {task: collected_share(task, *how) for task, how in speeds.items()}
    for task, share in result["collection_vs_bare_steps"].items():
        print(f"{task:30} collected at {share:.2f} of the simulator's own rate on all cores", file=sys.stderr)
    if arguments.episodes == parser.get_default("episodes"):
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(result))
    short = [task for task, found in result["tasks"].items() if found["success"] < found["least"]]
    if short:
        sys.exit(f"less often than it should: {', '.join(short)}")


if __name__ == "__main__":
    main()
