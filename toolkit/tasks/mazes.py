"""The registered mazes: which environments are played in one, on what scale, by what robot."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from toolkit.maze import Maze
from toolkit.tasks.registry import make, registry_spec


class Robot(NamedTuple):
    """What moves in a family of mazes, in metres."""

    cell: float  # a cell's side, which the library fixes
    room: float  # how far off a cell's centre, along each axis, it touches no wall yet
    ogbench: bool = False  # whether the family is OGBench's and not gymnasium-robotics'


ROBOTS = {
    "PointMaze": Robot(cell=1.0, room=0.35),  # half a cell less the ball's radius and a hand's breadth
    "AntMaze": Robot(cell=4.0, room=1.0),  # half a cell less the outstretched legs and a hand's breadth
    "pointmaze": Robot(cell=4.0, room=1.0, ogbench=True),
    "antmaze": Robot(cell=4.0, room=1.0, ogbench=True),
}

_making = threading.Lock()


def family(env_id: str) -> str:
    """PointMaze of PointMaze_UMaze-v3, pointmaze of pointmaze-medium-v0, whether it is a maze or not."""
    return re.split("[_-]", env_id)[0]


def is_maze(env_id: str) -> bool:
    """Whether an environment is a maze whose starts and goals a task card can draw."""
    return family(env_id) in ROBOTS


def is_ogbench(env_id: str) -> bool:
    """Whether an environment is one of OGBench's mazes."""
    return is_maze(env_id) and ROBOTS[family(env_id)].ogbench


def maze_of(env_id: str, maze_map: Sequence[Sequence[int | str]] | None = None) -> Maze:
    """Geometry of a registered maze, or of `maze_map` where one replaces it. Equal arguments give the same object."""
    if is_ogbench(env_id):
        return _ogbench_maze(env_id)
    rows = registry_spec(env_id).kwargs["maze_map"] if maze_map is None else maze_map
    return _maze(tuple(tuple(row) for row in rows), ROBOTS[family(env_id)].cell)


@lru_cache(maxsize=64)
def _maze(rows: tuple[tuple[int | str, ...], ...], scale: float) -> Maze:
    return Maze(rows, scale)


@lru_cache(maxsize=8)
def _ogbench_maze(env_id: str) -> Maze:
    """Its y grows with the row of its map, so that the map is upside down here, and cell (1, 1) of that is the origin.

    The map stands nowhere but in an environment that has been made.
    """
    made = make_library(env_id, {})
    rows = made.unwrapped.maze_map[::-1].tolist()
    made.close()
    scale = ROBOTS[family(env_id)].cell
    x, y = ((cells / 2 - 1.5) * scale for cells in (len(rows[0]), len(rows)))
    return Maze(rows, scale, (x, y))


def make_library(env_id: str, arguments: Mapping[str, Any]) -> Any:
    """The library's environment. Raises ToolkitError for an unknown one, or arguments that it does not take.

    Libraries write the maze's XML into the system's temporary folder: it stays for ever, and where its name is made
    from the clock two processes that start together meet. A folder of our own ends both.
    """
    with _making, tempfile.TemporaryDirectory(prefix="maze-") as folder:
        usual, tempfile.tempdir = tempfile.tempdir, folder
        try:
            return make(env_id, arguments)
        finally:
            tempfile.tempdir = usual
