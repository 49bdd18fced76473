"""What a data set's trajectories cover, and which starts no single one of them joins to the goal (level 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toolkit.maze import Cell, Maze
from toolkit.types import BoolArray, Episodes, IntArray, Json


@dataclass(frozen=True)
class Coverage:
    """A data set seen on the cells of its maze, H rows by W columns, for one goal."""

    visits: IntArray  # (H, W) recorded positions in each cell
    edges: IntArray  # (K, 2, 2) the moves from cell to cell that occur, each once: [from, to] as (row, col), sorted
    joined: BoolArray  # (H, W) some trajectory was in the cell and later, or then, at the goal
    reachable: BoolArray  # (H, W) moves of the data, of one trajectory or of several, lead from the cell to the goal
    goal: Cell

    @property
    def visited(self) -> BoolArray:
        """Cells in which the data holds a position, (H, W)."""
        return self.visits > 0

    @property
    def far_starts(self) -> list[Cell]:
        """Visited cells that no trajectory joins to the goal, by row and column: success from there is stitched."""
        far = self.visited & ~self.joined
        far[self.goal] = False
        return [(int(row), int(col)) for row, col in np.argwhere(far)]

    def summary(self) -> Json:
        """Counts for a manifest or a report."""
        far = self.far_starts
        return {
            "visited_cells": int(self.visited.sum()),
            "cell_edges": len(self.edges),
            "joined_cells": int(self.joined.sum()),
            "far_starts": [list(cell) for cell in far],
            "far_starts_stitchable": sum(bool(self.reachable[cell]) for cell in far),
        }


def coverage(episodes: Episodes, maze: Maze, goal_xy: npt.ArrayLike, radius: float) -> Coverage:
    """Cells that the episodes' achieved goals (R, 2) visit, and those that one of them joins to the goal.

    A trajectory is at the goal within `radius` metres of `goal_xy`. Positions outside the maze's free cells are
    left out.
    """
    goal_xy = np.asarray(goal_xy, np.float32)
    height, width = maze.wall.shape
    rowcol = maze.xy_to_cell(episodes.achieved)  # (R, 2)
    inside = ((rowcol >= 0) & (rowcol < (height, width))).all(-1)
    cell = np.where(inside, rowcol[:, 0] * width + rowcol[:, 1], -1)
    inside &= ~maze.wall.reshape(-1)[cell]
    cell[~inside] = -1

    # in float32 and squared, as the task card decides: an episode cut at the goal is one that reaches it
    offset = episodes.achieved.astype(np.float32) - goal_xy
    before_goal = _before_last(episodes, (offset * offset).sum(-1) <= np.float32(radius) ** 2)
    joined = np.bincount(cell[inside & before_goal], minlength=height * width) > 0
    edges = _moves(episodes, cell)
    return Coverage(
        visits=np.bincount(cell[inside], minlength=height * width).reshape(height, width),
        edges=np.stack(np.divmod(edges, width), -1).reshape(-1, 2, 2),
        joined=joined.reshape(height, width),
        reachable=_upstream(joined, edges).reshape(height, width),
        goal=_as_cell(maze.xy_to_cell(goal_xy)),
    )


def _before_last(episodes: Episodes, event: BoolArray) -> BoolArray:
    """Rows that lie at or before the last row of their episode where `event` holds, (R,)."""
    if not len(episodes):
        return np.zeros(0, np.bool_)
    row = np.arange(len(event))
    last = np.maximum.reduceat(np.where(event, row, -1), episodes.starts[:-1])
    return np.asarray(row <= np.repeat(last, np.diff(episodes.starts)))


def _moves(episodes: Episodes, cell: IntArray) -> IntArray:
    """Distinct pairs of different cells that follow each other within an episode, (K, 2), sorted."""
    move = (cell[1:] != cell[:-1]) & (cell[1:] >= 0) & (cell[:-1] >= 0)
    move[episodes.starts[1:-1] - 1] = False  # from the end of one episode to the start of the next
    return np.unique(np.stack([cell[:-1][move], cell[1:][move]], -1), axis=0)


def _upstream(seeds: BoolArray, edges: IntArray) -> BoolArray:
    """Everything from which a chain of edges leads into `seeds`, (H * W,)."""
    reached = seeds.copy()
    count = -1
    while reached.sum() != count:
        count = reached.sum()
        reached[edges[reached[edges[:, 1]], 0]] = True
    return reached


def _as_cell(rowcol: IntArray) -> Cell:
    return int(rowcol[0]), int(rowcol[1])
