"""What a data set's trajectories cover, and which starts no single one of them joins to the goal (level 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

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
    height, width = maze.wall.shape
    cell = _cells(episodes, maze)
    near, goal = _near(episodes, goal_xy, radius), _as_cell(maze.xy_to_cell(goal_xy))
    joined = _joined(episodes, cell, near, height * width)
    # an episode that arrives ends, with a large radius in the cell before the goal's
    arriving = np.intersect1d(cell[near & (cell >= 0)], [row * width + col for row, col in maze.neighbours(goal)])
    moves = np.stack([arriving, np.full_like(arriving, goal[0] * width + goal[1])], -1)
    edges = np.unique(np.concatenate([_moves(episodes, cell), moves]), axis=0)
    return Coverage(
        visits=np.bincount(cell[cell >= 0], minlength=height * width).reshape(height, width),
        edges=np.stack(np.divmod(edges, width), -1).reshape(-1, 2, 2),
        joined=joined.reshape(height, width),
        reachable=_upstream(joined, edges).reshape(height, width),
        goal=goal,
    )


def exits(episodes: Episodes, maze: Maze) -> Json:
    """Whether trajectories that enter a junction in the same way leave it in different ones.

    A junction is a cell with more than two free neighbours. `entries` counts the ways in that occur, over all of them,
    `exits` the mean number of ways out that follow one, and `best_guess` is the share of passes for which the
    commonest way out is the right one: about what imitation can know of where a trajectory goes. Null without a pass.
    """
    cell = _cells(episodes, maze)
    owner = np.repeat(np.arange(len(episodes)), np.diff(episodes.starts))
    entered = np.append(True, (cell[1:] != cell[:-1]) | (owner[1:] != owner[:-1]))[: len(cell)] & (cell >= 0)
    path, owner = cell[entered], owner[entered]
    way = np.stack([path[:-2], path[1:-1], path[2:]], -1)  # (K, 3) from, through, to
    degree = np.zeros(maze.wall.size, np.int64)
    for row, col in maze.free_cells:
        degree[row * maze.wall.shape[1] + col] = len(maze.neighbours((row, col)))
    passes = way[(owner[:-2] == owner[2:]) & (degree[way[:, 1]] > 2) & (way[:, 0] != way[:, 2])]
    ways, count = np.unique(passes, axis=0, return_counts=True)
    _, first, entry = np.unique(ways[:, :2], axis=0, return_index=True, return_inverse=True)
    most = np.zeros(len(first), np.int64)
    np.maximum.at(most, entry.reshape(-1), count)
    return {
        "entries": len(first),
        "exits": len(ways) / len(first) if len(first) else None,
        "best_guess": float(most.sum() / count.sum()) if len(first) else None,
    }


@dataclass(frozen=True)
class Piece:
    """Rows `first` to `last` of the episodes, both included, all of one `episode`: a part of a route."""

    episode: int
    first: int
    last: int


class Stitches:
    """How many trajectories of a data set must be joined to get from one cell of its maze to another.

    A route may change from one trajectory to another in a cell that both visit, and goes forward in time on each; it
    may also go back to an earlier visit of the same trajectory, which is a stitch like any other. With k + 1 pieces in
    a chain it has k stitches. Exact: whether one trajectory joins two cells is a relation between cells, and the
    fewest stitches are the shortest ways through that relation (arXiv:2410.20092 asks for such data; the count is
    ours).
    """

    def __init__(self, episodes: Episodes, maze: Maze) -> None:
        self._episodes, self._maze = episodes, maze
        self._cell = _cells(episodes, maze)  # (R,) number of the cell of each row, -1 off the free ones
        self._size = maze.wall.size
        self._joins = self._relation()  # (C, C) some trajectory is in the one cell, and then or later in the other

    @cached_property
    def table(self) -> IntArray:
        """Stitches from each cell to each, (H, W, H, W): 0 where one trajectory does it, -1 where none can."""
        pieces = np.where(self._joins, 1, -1)
        reached, count = self._joins, 1
        while True:
            further = _follow(reached, self._joins) & (pieces < 0)
            if not further.any():
                break
            count += 1
            pieces[further] = count
            reached = pieces > 0
        return np.where(pieces > 0, pieces - 1, -1).reshape(*self._maze.wall.shape, *self._maze.wall.shape)

    def to_point(self, goal_xy: npt.ArrayLike, radius: float) -> IntArray:
        """The same to a goal of `radius` metres, (H, W): the last trajectory must come that near."""
        flat = self._to(_near(self._episodes, goal_xy, radius))
        return flat.reshape(self._maze.wall.shape)

    def _to(self, event: BoolArray) -> IntArray:
        """Stitches from each cell, (C,), to rows at which `event` (R,) holds."""
        joined = _joined(self._episodes, self._cell, event, self._size)
        found, count = np.where(joined, 0, -1), 0
        while True:
            further = self._joins[:, found >= 0].any(1) & (found < 0)
            if not further.any():
                return found
            count += 1
            found[further] = count

    def pieces(
        self, start: Cell, goal: Cell | None = None, near: tuple[npt.ArrayLike, float] | None = None
    ) -> list[Piece]:
        """One route from `start` to a `goal` cell, or `near` a point within a radius, with the fewest stitches.

        Of the pieces that lead one stitch nearer the shortest is taken. Empty where the data holds no route.
        """
        width = self._maze.wall.shape[1]
        number = start[0] * width + start[1]
        if near is not None:
            event = _near(self._episodes, *near)
        else:
            assert goal is not None
            event = self._cell == goal[0] * width + goal[1]
        left = self._to(event)
        route: list[Piece] = []
        while left[number] >= 0:
            wanted = event if left[number] == 0 else (left == left[number] - 1)[self._cell] & (self._cell >= 0)
            piece = self._shortest(number, wanted)
            route.append(piece)
            if left[number] == 0:
                return route
            number = int(self._cell[piece.last])
        return []

    def _shortest(self, number: int, wanted: BoolArray) -> Piece:
        """The fewest rows of one trajectory from a cell to a wanted row."""
        owner = np.repeat(np.arange(len(self._episodes)), np.diff(self._episodes.starts))
        row = np.arange(len(wanted))
        ahead = np.minimum.accumulate(np.where(wanted, row, len(row))[::-1])[
            ::-1
        ]  # the next wanted row, or past the end
        ends = np.minimum(ahead, len(row) - 1)
        possible = (self._cell == number) & (ahead < len(row)) & (owner[ends] == owner)
        first = int(np.flatnonzero(possible)[(ahead - row)[possible].argmin()])
        return Piece(int(owner[first]), first, int(ahead[first]))

    def _relation(self) -> BoolArray:
        """One trajectory is in cell a no later than it is last in cell b."""
        joins = np.zeros((self._size, self._size), np.bool_)
        for begin, end in pairwise(self._episodes.starts.tolist()):
            cells = self._cell[begin:end]
            cells = cells[cells >= 0]
            visited, first = np.unique(cells, return_index=True)
            last = len(cells) - 1 - np.unique(cells[::-1], return_index=True)[1]
            joins[np.ix_(visited, visited)] |= first[:, None] <= last
        return joins


def _follow(first: BoolArray, then: BoolArray) -> BoolArray:
    """What two relations lead to, one after the other."""
    return np.asarray(first.astype(np.float32) @ then.astype(np.float32) > 0.5)


def _cells(episodes: Episodes, maze: Maze) -> IntArray:
    """Number of the free cell that holds each row's achieved goal, (R,); -1 where there is none."""
    height, width = maze.wall.shape
    rowcol = maze.xy_to_cell(episodes.achieved)
    inside = ((rowcol >= 0) & (rowcol < (height, width))).all(-1)
    cell = np.where(inside, rowcol[:, 0] * width + rowcol[:, 1], -1)
    cell[maze.wall.reshape(-1)[cell]] = -1
    return cell


def _near(episodes: Episodes, goal_xy: npt.ArrayLike, radius: float) -> BoolArray:
    """Rows within `radius` metres of a point, (R,).

    In float32 and squared, as the task card decides: an episode cut at the goal is one that reaches it.
    """
    offset = episodes.achieved.astype(np.float32) - np.asarray(goal_xy, np.float32)
    return np.asarray((offset * offset).sum(-1) <= np.float32(radius) ** 2)


def _joined(episodes: Episodes, cell: IntArray, event: BoolArray, size: int) -> BoolArray:
    """Cells in which a trajectory is before, or when, `event` holds for it, (size,)."""
    return np.bincount(cell[(cell >= 0) & _before_last(episodes, event)], minlength=size) > 0


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
