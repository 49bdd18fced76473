"""What the report draws a maze from: the data's pieces and the policies' routes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.evaluate import EvalResult
from toolkit.files import write_json
from toolkit.maze import Cell
from toolkit.tasks import TaskCard
from toolkit.types import Episodes, FloatArray

MOST_PIECES = 300
MOST_ROUTES = 12  # of each seed
THINNED = 2  # every so many points of a line are kept


def write_routes(path: Path, result: EvalResult, card: TaskCard, seeds: Sequence[int], far: Sequence[Cell]) -> None:
    """The first recorded episodes of each seed, with the maze around them; nothing where there is none."""
    if not card.in_maze:
        return
    routes = [
        {"seed": seed, "success": bool(result.success[row, place]), "xy": _line(route.xy)}
        for row, (seed, recorded) in enumerate(zip(seeds, result.routes or (), strict=True))
        for place, route in enumerate(recorded[:MOST_ROUTES])
    ]
    goal = None if card.goal_xy is None else card.goal_xy.tolist()
    drawn = {"goal": goal, "radius": card.goal.radius, "routes": routes, "far_starts": list(far)}
    write_json(path, card.maze.layout() | drawn)


def write_pieces(path: Path, episodes: Episodes) -> None:
    """An even choice of the recorded episodes and whether each reaches the task's goal."""
    chosen = np.unique(np.linspace(0, len(episodes) - 1, MOST_PIECES).round().astype(int))
    spans = [slice(*episodes.starts[[e, e + 1]]) for e in chosen]
    reaches = [bool(episodes.terminated[span].any()) for span in spans]
    write_json(path, {"pieces": [_line(episodes.achieved[span]) for span in spans], "reaches_goal": reaches})


def _line(xy: FloatArray) -> list[list[float]]:
    """Fewer points, the last one among them, to the millimetre."""
    kept = np.concatenate([xy[:-1:THINNED], xy[-1:]])
    return [[round(float(x), 3), round(float(y), 3)] for x, y in kept]
