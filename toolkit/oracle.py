"""The best a policy can do on a data set's own moves: a table of cells with a controller to carry it out (level 3).

Value iteration on the maze's cells, with the moves that occur in the data as the only ones there are and a price of 1
for each, is the shortest way through them. Nothing is learned and nothing is noisy, so what this policy does not reach
the data does not show: it is the ceiling for success on such data.
"""

from __future__ import annotations

import numpy as np

from toolkit.controllers.ant import CUT, trot
from toolkit.controllers.recipe import Waypoint
from toolkit.maze import Cell, Maze
from toolkit.tasks import TaskCard
from toolkit.tasks.actions import pushes
from toolkit.tasks.mazes import family
from toolkit.types import FloatArray, Floats, IntArray

FAR = 1 << 30


class Oracle:
    """Drives as the scripted behaviour does, along moves of the data; it sees the goal also where policies do not.

    Calling it with policy inputs (S, N, O) gives actions (S, N, A); it survives pickling, as `evaluate` needs. Where
    the data leads nowhere it stays where it is.
    """

    def __init__(self, card: TaskCard, moves: IntArray) -> None:
        self._maze, self._goal_xy = card.maze, card.goal_xy
        robot = family(card.env_id)
        self._walks = robot in ("AntMaze", "antmaze")
        self._cut = CUT if self._walks else 1.0
        self._choices = pushes(card.directions) if card.directions else None
        driver = Waypoint(kind="waypoint")
        rolls = robot == "PointMaze"  # OGBench's point keeps no speed, and its state does not hold one
        self._stiff, self._damp = driver.stiffness / self._maze.scale, rolls * driver.damping / self._maze.scale
        self.distance = _distances(self._maze, moves)  # (C, C) moves from each cell to each; FAR where there is no way
        self._towards = _next_cells(self.distance)
        self._centres = self._maze.cell_to_xy(np.stack(np.divmod(np.arange(self._maze.wall.size), self._width), -1))

    @property
    def _width(self) -> int:
        return int(self._maze.wall.shape[1])

    def reaches(self, start: Cell, goal: Cell) -> bool:
        """Whether the data's moves lead from one cell to the other."""
        return bool(self.distance[start[0] * self._width + start[1], goal[0] * self._width + goal[1]] < FAR)

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Forces or torques as shares of the greatest, from the state and, where it is observed, the goal behind it."""
        state = inputs.reshape(-1, inputs.shape[-1]).astype(np.float64)
        position = state[:, :2]
        goal = state[:, -2:] if self._goal_xy is None else np.broadcast_to(self._goal_xy, position.shape)
        aim = self._aim(self._number(position), self._number(goal), goal)
        if self._walks:
            force = trot(state, np.arctan2(aim[:, 1] - position[:, 1], aim[:, 0] - position[:, 0]))
        else:
            force = self._stiff * (aim - position) - self._damp * state[:, 2:4]
        force[np.isnan(aim).any(-1)] = 0.0
        force = np.clip(force, -1.0, 1.0).reshape(*inputs.shape[:-1], force.shape[-1])
        return force.astype(np.float32) if self._choices is None else self._choices.nearest(force)

    def _aim(self, cell: IntArray, goal_cell: IntArray, goal: Floats) -> Floats:
        """Between the next cell and its doorway to the one after; in and beside the goal's cell the goal, (N, 2)."""
        coming = self._towards[cell, goal_cell]
        after = self._towards[np.maximum(coming, 0), goal_cell]
        aim = self._centres[coming] + self._cut * (self._centres[after] - self._centres[coming]) / 2
        aim[coming < 0] = np.nan
        close = (cell == goal_cell) | (coming == goal_cell)
        aim[close] = goal[close]
        return np.asarray(aim)

    def _number(self, xy: Floats) -> IntArray:
        """Number of the cell that holds each point, (N, 2) -> (N,)."""
        height, width = self._maze.wall.shape
        rowcol = np.clip(self._maze.xy_to_cell(xy), 0, (height - 1, width - 1))
        return np.asarray(rowcol[..., 0] * width + rowcol[..., 1])


def _distances(maze: Maze, moves: IntArray) -> IntArray:
    """Fewest of the `moves` (K, 2, 2) between any two cells, (C, C), by relaxing all of them until nothing changes.

    Steps across a corner are left out: in the data they are two moves in one control period.
    """
    width, size = maze.wall.shape[1], maze.wall.size
    straight = moves[np.abs(moves[:, 0] - moves[:, 1]).sum(-1) == 1]
    source, target = (straight[:, end, 0] * width + straight[:, end, 1] for end in (0, 1))
    distance = np.full((size, size), FAR)
    np.fill_diagonal(distance, 0)
    while True:
        better = distance.copy()
        np.minimum.at(better, source, distance[target] + 1)
        if (better == distance).all():
            return distance
        distance = better


def _next_cells(distance: IntArray) -> IntArray:
    """The cell to go to next from each cell to each goal, (C, C); -1 where there is none. Ties go to the first one."""
    towards = np.full(distance.shape, -1)
    beside = [np.flatnonzero(row == 1) for row in distance]
    for cell, near in enumerate(beside):
        if len(near):
            best = near[distance[near].argmin(0)]
            towards[cell] = np.where((distance[cell] < FAR) & (distance[cell] > 0), best, -1)
    return towards
