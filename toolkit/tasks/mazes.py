"""The registered mazes: which environments are played in one, on what scale, by what robot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from toolkit.maze import Maze
from toolkit.tasks.registry import registry_spec


class Robot(NamedTuple):
    """What moves in a family of mazes, in metres."""

    cell: float  # a cell's side, which the library fixes
    room: float  # how far off a cell's centre, along each axis, it touches no wall yet


ROBOTS = {
    "PointMaze": Robot(cell=1.0, room=0.35),  # half a cell less the ball's radius and a hand's breadth
    "AntMaze": Robot(cell=4.0, room=1.0),  # half a cell less the outstretched legs and a hand's breadth
}


def family(env_id: str) -> str:
    """PointMaze of PointMaze_UMaze-v3, whether it is a maze or not."""
    return env_id.partition("_")[0]


def is_maze(env_id: str) -> bool:
    """Whether an environment is a maze whose starts and goals a task card can draw."""
    return "_" in env_id and family(env_id) in ROBOTS


def maze_of(env_id: str, maze_map: Sequence[Sequence[int | str]] | None = None) -> Maze:
    """Geometry of a registered maze, or of `maze_map` where one replaces it. Equal arguments give the same object."""
    rows = registry_spec(env_id).kwargs["maze_map"] if maze_map is None else maze_map
    return _maze(tuple(tuple(row) for row in rows), ROBOTS[family(env_id)].cell)


@lru_cache(maxsize=64)
def _maze(rows: tuple[tuple[int | str, ...], ...], scale: float) -> Maze:
    return Maze(rows, scale)
