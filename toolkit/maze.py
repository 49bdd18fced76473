"""Geometry of a maze on a grid: cells, shortest paths, true shortest lengths. Pure numpy, knows no simulator.

Cells are (row, col) with row 0 at the top; x grows with the column and y shrinks with the row. The map's centre is the
origin, as in gymnasium-robotics, unless it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.types import Floats, IntArray

Cell = tuple[int, int]
Bools = npt.NDArray[np.bool_]

_SLIVER = 1e-9  # pieces of a sight line shorter than this (in cells) come from rounding at a grid vertex


class Maze:
    """A grid of walls (1) and free cells (anything else), each a square of `scale` metres.

    `centre` is the (x, y) of the map's middle; `left` is the x of its left edge, `top` the y of its upper one (m).
    """

    def __init__(
        self, map: Sequence[Sequence[int | str]], scale: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.wall = np.array([[entry in (1, "1") for entry in row] for row in map], dtype=np.bool_)  # (H, W)
        self.scale = float(scale)
        self.free_cells: list[Cell] = [(int(row), int(col)) for row, col in np.argwhere(~self.wall)]
        height, width = self.wall.shape
        self.centre = centre
        self.left = centre[0] - width / 2 * self.scale
        self.top = centre[1] + height / 2 * self.scale
        self._distances: dict[Cell, IntArray] = {}

    def is_free(self, cell: Sequence[int] | IntArray) -> bool:
        """Whether `cell` lies on the map and is no wall."""
        row, col = int(cell[0]), int(cell[1])
        height, width = self.wall.shape
        return 0 <= row < height and 0 <= col < width and not bool(self.wall[row, col])

    def cell_to_xy(self, cell: npt.ArrayLike) -> Floats:
        """Centre of each cell in metres; (..., 2) rows and columns to (..., 2)."""
        rowcol = np.asarray(cell)
        x = (rowcol[..., 1] + 0.5) * self.scale + self.left
        y = self.top - (rowcol[..., 0] + 0.5) * self.scale
        return np.stack([x, y], axis=-1)

    def xy_to_cell(self, xy: npt.ArrayLike) -> IntArray:
        """Cell that holds each point; (..., 2) metres to (..., 2) rows and columns."""
        point = np.asarray(xy)
        row = np.floor((self.top - point[..., 1]) / self.scale)
        col = np.floor((point[..., 0] - self.left) / self.scale)
        return np.stack([row, col], axis=-1).astype(np.int64)

    def layout(self) -> dict[str, Any]:
        """Walls, scale and, where it is not the origin, centre, as JSON has them; pictures are drawn from it."""
        shifted = {"centre": list(self.centre)} if any(self.centre) else {}
        return {"maze": self.wall.astype(int).tolist(), "scale": self.scale, **shifted}

    def distances_to(self, goal: Cell) -> IntArray:
        """Steps from every cell to `goal` through free neighbours, (H, W); -1 at walls and unreachable cells."""
        known = self._distances.get(goal)
        if known is not None:
            return known
        if not self.is_free(goal):
            raise ValueError(f"cell {goal} is a wall or off the map; free cells: {self.free_cells}")
        steps = np.full(self.wall.shape, -1, dtype=np.int64)
        steps[goal] = 0
        queue = deque([goal])
        while queue:
            cell = queue.popleft()
            for neighbour in self.neighbours(cell):
                if steps[neighbour] < 0:
                    steps[neighbour] = steps[cell] + 1
                    queue.append(neighbour)
        steps.flags.writeable = False
        self._distances[goal] = steps
        return steps

    def neighbours(self, cell: Cell) -> list[Cell]:
        """Free cells that share a side with `cell`: up, down, left, right."""
        row, col = cell
        around = ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
        return [neighbour for neighbour in around if self.is_free(neighbour)]

    def steps_between(self, a: Cell, b: Cell) -> int:
        """Cells to walk from `a` to `b`. Raises ValueError where no path joins them."""
        steps = int(self.distances_to(b)[a])
        if steps < 0:
            raise ValueError(f"no path joins cells {a} and {b}")
        return steps

    def toward(self, cell: Cell, goal: Cell) -> Cell:
        """The neighbour of `cell` one step nearer to `goal`; the first in the order of `neighbours` on a tie."""
        if cell == goal:
            return goal
        distance = self.distances_to(goal)
        nearer = self.steps_between(cell, goal) - 1
        return next(neighbour for neighbour in self.neighbours(cell) if distance[neighbour] == nearer)

    def path(self, start: Cell, goal: Cell) -> list[Cell]:
        """A shortest string of cells from `start` to `goal`, both included. Raises ValueError where there is none."""
        cells = [start]
        while cells[-1] != goal:
            cells.append(self.toward(cells[-1], goal))
        return cells

    def shortest_length(self, start_xy: npt.ArrayLike, goal_xy: npt.ArrayLike) -> float:
        """Length in metres of the shortest way a point can take between two free points; inf where there is none.

        Such a way bends only at convex wall corners, so it is a straight line or the best pair of corners, one seen
        from each end, joined by the precomputed distance between corners.
        """
        start, goal = self._to_grid(start_xy), self._to_grid(goal_xy)
        for name, point in (("start", start), ("goal", goal)):
            if not self.is_free(np.floor(point).astype(np.int64)[::-1]):
                raise ValueError(f"{name} lies in a wall or off the map: cell {np.floor(point)[::-1]}")
        if self._visible(start[None], goal[None])[0, 0]:
            return float(np.linalg.norm(goal - start) * self.scale)
        corners, between = self._corner_distances
        if len(corners) == 0:
            return float("inf")
        ends = np.stack([start, goal])
        leg = np.linalg.norm(ends[:, None] - corners, axis=-1)  # (2, C)
        leg[~self._visible(ends, corners)] = np.inf
        return float((leg[0][:, None] + between + leg[1]).min() * self.scale)

    def _to_grid(self, xy: npt.ArrayLike) -> Floats:
        """Metres to grid units (column, row), where cell (r, c) spans [c, c + 1] x [r, r + 1]."""
        point = np.asarray(xy, dtype=np.float64)
        return np.stack([point[..., 0] - self.left, self.top - point[..., 1]], axis=-1) / self.scale

    @cached_property
    def _corner_distances(self) -> tuple[Floats, Floats]:
        """Convex wall corners (C, 2) in grid units and the shortest distance between each two (C, C)."""
        around = np.pad(self.wall, 1, constant_values=True).astype(np.int64)
        walls = around[:-1, :-1] + around[1:, :-1] + around[:-1, 1:] + around[1:, 1:]  # at each grid vertex
        corners = np.argwhere(walls == 1)[:, ::-1].astype(np.float64)
        between = np.linalg.norm(corners[:, None] - corners, axis=-1)
        between[~self._visible(corners, corners)] = np.inf
        np.fill_diagonal(between, 0.0)
        for middle in range(len(corners)):  # Floyd-Warshall: C is a few dozen
            np.minimum(between, between[:, middle, None] + between[middle], out=between)
        return corners, between

    def _visible(self, a: Floats, b: Floats) -> Bools:
        """Whether the straight line from each a (N, 2) to each b (M, 2), in grid units, meets no wall's inside; (N, M).

        The line is cut where it crosses grid lines; each piece then lies inside one cell, or along a grid line
        between two. Running along a wall's face or touching one corner is free; slipping between two walls that meet
        at a corner is not.
        """
        height, width = self.wall.shape
        origin = np.broadcast_to(a[:, None], (len(a), len(b), 2)).reshape(-1, 2)
        delta = (b[None] - a[:, None]).reshape(-1, 2)
        cuts = [np.zeros((len(delta), 1)), np.ones((len(delta), 1))]
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis, lines in ((0, np.arange(width + 1)), (1, np.arange(height + 1))):
                crossing = (lines - origin[:, axis, None]) / delta[:, axis, None]
                cuts.append(np.where(np.isfinite(crossing), np.clip(crossing, 0.0, 1.0), 0.0))
        at = np.sort(np.concatenate(cuts, axis=1), axis=1)
        real = np.diff(at, axis=1) * np.linalg.norm(delta, axis=1)[:, None] > _SLIVER
        middle = origin[:, None] + (at[:, :-1] + at[:, 1:])[..., None] / 2 * delta[:, None]  # (N*M, K, 2)
        near, far = np.floor(middle - _SLIVER), np.floor(middle + _SLIVER)  # differ on a grid line only
        blocked = self._wall_at(near) & self._wall_at(far)
        seen: Bools = ~(blocked & real).any(axis=1) & ~self._pinched(near, far, real)
        return seen.reshape(len(a), len(b))

    def _pinched(self, near: Floats, far: Floats, real: Bools) -> Bools:
        """Whether a line steps diagonally between two cells past two walls; cells are (L, K, 2), the answer (L,)."""
        pinched = np.zeros(len(near), dtype=np.bool_)
        inside = real & (near == far).all(axis=-1)
        for line in np.flatnonzero(inside.sum(axis=1) > 1):
            cells = near[line][inside[line]]
            step = np.abs(np.diff(cells, axis=0)).sum(axis=1)
            for here, there in zip(cells[:-1][step == 2], cells[1:][step == 2], strict=True):
                sides = np.array([[here[0], there[1]], [there[0], here[1]]])
                pinched[line] |= bool(self._wall_at(sides).all())
        return pinched

    def _wall_at(self, column_row: Floats) -> Bools:
        """Whether cells given as (..., 2) column, row are walls; everything off the map is."""
        height, width = self.wall.shape
        col, row = column_row[..., 0].astype(np.int64), column_row[..., 1].astype(np.int64)
        on_map: Bools = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        return ~on_map | self.wall[np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)]
