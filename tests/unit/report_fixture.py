"""A made-up run folder with everything a report can show, shaped like real ones.

`python tests/unit/report_fixture.py DIR` writes one to look at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.log import MetricsLog
from toolkit.maze import Maze

MAP = [
    [1, 1, 1, 1, 1, 1, 1, 1],
    [1, 0, 0, 1, 1, 0, 0, 1],
    [1, 0, 0, 1, 0, 0, 0, 1],
    [1, 1, 0, 0, 0, 1, 1, 1],
    [1, 0, 0, 1, 0, 0, 0, 1],
    [1, 0, 1, 0, 0, 1, 0, 1],
    [1, 0, 0, 0, 1, 0, 0, 1],
    [1, 1, 1, 1, 1, 1, 1, 1],
]
GOAL = (6, 6)
FAR = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 5), (1, 6), (2, 5), (2, 6), (6, 1), (5, 1)]
YAML = """\
name: {name}
description: Demos in pieces, joined by offline RL, polished online
task: pointmaze-medium
seeds: {seeds}
stages:
  collect: {{kind: collect, recipe: stitch}}
  clone: {{kind: offline, agent: bc, updates: 5000, eval_episodes: 20, final_episodes: 100}}
  pretrain:
    kind: offline
    agent: iql
    config: {{expectile: 0.7, beta: 5.0}}
    updates: 5000
    eval_episodes: 20
    final_episodes: 100
  finetune:
    kind: online
    agent: sac
    start: pretrain
    env_steps: 20000
    eval_episodes: 20
    final_episodes: 100
  evaluate: {{kind: evaluate, of: [finetune], episodes: 100, starts: far}}
"""


def success(rng: np.random.Generator, rate: float, seeds: int) -> dict[str, Any]:
    per_seed = [round(float(np.clip(rate + rng.normal(0, 0.02), 0, 1)), 2) for _ in range(seeds)]
    middle = float(np.mean(per_seed))
    return {
        "iqm": middle,
        "ci95": [max(0.0, middle - 0.035), min(1.0, middle + 0.03)],
        "per_seed": per_seed,
        "episodes": 100,
    }


def route(maze: Maze, rng: np.random.Generator, start: tuple[int, int], goal: tuple[int, int]) -> np.ndarray:
    """A wobbly walk along the shortest way, (T, 2)."""
    corners = maze.cell_to_xy(maze.path(start, goal)) + rng.normal(0, 0.12, (len(maze.path(start, goal)), 2))
    at = np.linspace(0, len(corners) - 1, 14 * len(corners))
    line = np.stack([np.interp(at, np.arange(len(corners)), corners[:, i]) for i in (0, 1)], axis=1)
    kernel = np.ones(9) / 9
    padded = np.pad(line, ((4, 4), (0, 0)), mode="edge")
    return np.stack([np.convolve(padded[:, i], kernel, "valid") for i in (0, 1)], axis=1)


def write_curves(folder: Path, phase: str, steps: np.ndarray, levels: np.ndarray, seeds: int, values: bool) -> None:
    rng = np.random.default_rng(len(steps) + seeds)
    offset = rng.normal(0, 0.02, seeds)
    with MetricsLog(folder / "metrics.jsonl") as log:
        for place, (step, level) in enumerate(zip(steps, levels, strict=True)):
            rate = np.clip(level + offset + rng.normal(0, 0.015, seeds), 0, 1)
            row: dict[str, Any] = {
                "eval/success": rate,
                "eval/return": -40 - 60 * (1 - rate),
                "eval/path_ratio": 1.1 + 0.6 * (1 - rate) + rng.normal(0, 0.01, seeds),
            }
            if values:
                true = -45 + 8 * rate + rng.normal(0, 0.5, seeds)
                settle = np.exp(-place / 6)
                row |= {"q_data": -51 - 10 * settle + offset * 10, "true_return": true}
                row["q_policy"] = row["q_data"] + 3 + rng.normal(0, 0.4, seeds)
                row |= {"q_start": true - 4 - 12 * settle, "q_below_return": np.clip(rate + 0.05, 0, 1).round(1)}
            if phase == "online":
                row |= {
                    "action_distance": 0.4 + 0.1 * (1 - np.exp(-place / 6)) + offset,
                    "offline_share": [0.5] * seeds,
                }
            log.write(phase, int(step), row)
            for part in range(4):
                decay = 0.3 * np.exp(-(place + part / 4) / 5) + 0.05
                losses = {f"loss/{n}": decay * k * (1 + rng.normal(0, 0.1, seeds)) for n, k in (("V", 1), ("Q", 4))}
                log.write(phase, int(step) + part + 1, losses | {"loss/pi": 1.5 - 0.4 * rate})


def write_routes(folder: Path, maze: Maze, seeds: int, failing: float) -> None:
    rng = np.random.default_rng(5)
    routes = []
    for seed in range(seeds):
        for start in FAR:
            way = route(maze, rng, start, GOAL)
            fails = bool(rng.random() < failing)
            xy = way[: len(way) // 2] if fails else way
            routes.append({"seed": seed, "success": not fails, "xy": xy.round(3).tolist()})
    goal = maze.cell_to_xy(GOAL).tolist()
    content = {"maze": MAP, "scale": 1.0, "goal": goal, "radius": 0.45, "routes": routes, "far_starts": FAR}
    (folder / "routes.json").write_text(json.dumps(content))


def write_pieces(folder: Path, maze: Maze, count: int) -> None:
    rng = np.random.default_rng(9)
    pieces, reaches = [], []
    while len(pieces) < count:
        start, goal = (maze.free_cells[i] for i in rng.integers(len(maze.free_cells), size=2))
        if 1 <= maze.steps_between(start, goal) <= 4:
            pieces.append(route(maze, rng, start, goal).round(3).tolist())
            reaches.append(goal == GOAL)
    (folder / "pieces.json").write_text(json.dumps({"pieces": pieces, "reaches_goal": reaches}))


def write_run(folder: Path, name: str = "offline2online", seeds: int = 3, pieces: int = 600) -> Path:
    """Everything: baselines, a switch, a maze. Tests take away what they want to see missing."""
    rng = np.random.default_rng(3)
    maze = Maze(MAP, 1.0)
    stages: dict[str, Any] = {
        "collect": {"kind": "collect", "wall_s": 9.3},
        "clone": {"kind": "offline", "agent": "bc", "wall_s": 31.0, "success": success(rng, 0.27, seeds)},
        "pretrain": {"kind": "offline", "agent": "iql", "wall_s": 148.5, "success": success(rng, 0.94, seeds)},
        "finetune": {
            "kind": "online",
            "agent": "sac",
            "start": "pretrain",
            "wall_s": 236.0,
            "success": success(rng, 0.985, seeds),
        },
        "evaluate": {"kind": "evaluate", "of": {"finetune": {}}, "wall_s": 21.7, "success": success(rng, 0.99, seeds)},
    }
    for stage, ratio in (("clone", 1.31), ("pretrain", 1.17), ("finetune", 1.12), ("evaluate", 1.11)):
        stages[stage] |= {"path_ratio": ratio, "return": -60 / stages[stage]["success"]["iqm"], "steps_to_goal": 88.0}
    for stage in stages:
        (folder / "stages" / stage).mkdir(parents=True)
    fall = {"step": 1000, "seed": 1, "success": 0.62, "best": 0.96, "best_step": 0, "lr_policy": 0.2, "offline": 0.75}
    stages["finetune"]["guard"] = [fall]
    baselines = {
        "bc": {"stage": "clone", "success": stages["clone"]["success"]},
        "fbc": {"stage": "filtered", "success": success(rng, 0.51, seeds)},
    }
    switch = {"dip": 0.043, "recovery_env_steps": 1500, "regret": 0.031, "before": stages["pretrain"]["success"]["iqm"]}
    summary = {
        "name": name,
        "description": "Demos in pieces, joined by offline RL, polished online",
        "task": "pointmaze-medium",
        "seeds": list(range(seeds)),
        "stages": stages,
        "baselines": baselines,
        "switch": switch,
        "wall_s": 449.0,
        "peak_rss_mb": 1893.0,
        "versions": {"toolkit": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "mujoco": "3.11.0", "numpy": "2.4.6"},
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    (folder / "pipeline.yaml").write_text(YAML.format(name=json.dumps(name), seeds=list(range(seeds))))
    steps = np.arange(0, 5001, 500)
    write_curves(folder / "stages/clone", "offline", steps, 0.27 * (1 - np.exp(-steps / 700)), seeds, False)
    write_curves(folder / "stages/pretrain", "offline", steps, 0.945 / (1 + np.exp(-(steps - 1700) / 420)), seeds, True)
    online = np.concatenate([np.arange(0, 10_001, 500), np.arange(12_000, 20_001, 2000)])
    dip = 0.07 * np.exp(-(((online - 700) / 450) ** 2))
    write_curves(folder / "stages/finetune", "online", online, 0.985 - 0.045 * np.exp(-online / 3e3) - dip, seeds, True)
    write_routes(folder / "stages/pretrain", maze, seeds, 0.1)
    write_routes(folder / "stages/evaluate", maze, seeds, 0.0)
    write_pieces(folder / "stages/collect", maze, pieces)
    return folder


if __name__ == "__main__":
    print(write_run(Path(sys.argv[1])))
