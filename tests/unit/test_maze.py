"""Cells and lengths against gymnasium-robotics' formula, known values and brute force."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.maze import Maze
from toolkit.report.maze_picture import _Board
from toolkit.tasks.mazes import maze_of

MAZES = ["PointMaze_UMaze-v3", "PointMaze_Medium-v3", "PointMaze_Large-v3"]
OPEN_L = [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]
PINCH = [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]]
PILLAR = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("env_id", MAZES)
def test_cells_are_those_of_the_library(env_id: str, scale: float) -> None:
    from gymnasium_robotics.envs.maze.maze_v4 import Maze as Theirs

    plan = maze_of(env_id).wall.astype(int).tolist()
    ours, theirs = Maze(plan, scale), Theirs(plan, scale, 0.5)
    for cell in ours.free_cells:
        np.testing.assert_array_equal(ours.cell_to_xy(cell), theirs.cell_rowcol_to_xy(np.array(cell)))
    points = np.random.default_rng(0).uniform(-5 * scale, 5 * scale, (500, 2))
    expected = np.array([theirs.cell_xy_to_rowcol(point) for point in points])
    np.testing.assert_array_equal(ours.xy_to_cell(points), expected)


@pytest.mark.parametrize("env_id", MAZES)
def test_paths_walk_through_free_neighbours_and_are_as_long_as_the_distance(env_id: str) -> None:
    maze = maze_of(env_id)
    for start in maze.free_cells:
        for goal in maze.free_cells[::3]:
            path = maze.path(start, goal)
            assert (path[0], path[-1]) == (start, goal)
            assert all(maze.is_free(cell) for cell in path)
            assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(path))
            assert len(path) - 1 == maze.steps_between(start, goal) == maze.steps_between(goal, start)


def test_a_centre_shifts_everything() -> None:
    maze, shifted = Maze(OPEN_L, 4.0), Maze(OPEN_L, 4.0, (10.0, -3.0))
    by = np.array([10.0, -3.0])
    np.testing.assert_array_equal(shifted.cell_to_xy(maze.free_cells), maze.cell_to_xy(maze.free_cells) + by)
    points = np.random.default_rng(0).uniform(-8, 8, (100, 2))
    np.testing.assert_array_equal(shifted.xy_to_cell(points + by), maze.xy_to_cell(points))
    ends = maze.cell_to_xy([(1, 1), (2, 2)])
    assert shifted.shortest_length(*(ends + by)) == pytest.approx(maze.shortest_length(*ends))
    assert "centre" not in maze.layout() and shifted.layout()["centre"] == [10.0, -3.0]
    boards = [_Board(given.layout()) for given in (maze, shifted)]
    np.testing.assert_array_equal(boards[1].pixels(points + by), boards[0].pixels(points + by - by))


def test_longest_routes_of_the_three_mazes() -> None:
    longest = {}
    for env_id in MAZES:
        maze = maze_of(env_id)
        longest[env_id] = max(int(maze.distances_to(cell).max()) for cell in maze.free_cells)
    assert list(longest.values()) == [6, 11, 19]


def test_cells_that_nothing_joins() -> None:
    maze = Maze(PINCH)
    with pytest.raises(ValueError, match="no path joins"):
        maze.path((1, 1), (2, 2))
    with pytest.raises(ValueError, match="wall or off the map"):
        maze.distances_to((0, 0))
    assert maze.shortest_length(maze.cell_to_xy((1, 1)), maze.cell_to_xy((2, 2))) == math.inf


def test_lengths_known_by_hand() -> None:
    bend = Maze(OPEN_L)
    start, goal = bend.cell_to_xy((1, 1)), bend.cell_to_xy((2, 2))
    assert bend.shortest_length(start, goal) == pytest.approx(math.sqrt(2))  # touches the one corner
    assert bend.shortest_length(start, goal - np.array([0.0, 0.3])) == pytest.approx(
        math.hypot(0.5, 0.5) + math.hypot(0.5, 0.8)
    )
    around = Maze(PILLAR)
    north, south = around.cell_to_xy((1, 2)), around.cell_to_xy((3, 2))
    assert around.shortest_length(north, south) == pytest.approx(2 * math.hypot(0.5, 0.5) + 1)
    assert Maze(PILLAR, 4.0).shortest_length(4 * north, 4 * south) == pytest.approx(4 * (2 * math.hypot(0.5, 0.5) + 1))
    with pytest.raises(ValueError, match="start lies in a wall"):
        around.shortest_length(around.cell_to_xy((2, 2)), south)


def grid_length(maze: Maze, start: tuple[int, int], goal: tuple[int, int], fine: int) -> float:
    """Shortest way from cell to cell over a lattice of `fine` points a cell, by Dijkstra.

    A move reaches any point up to three lattice steps away and keeps a hair's breadth from every wall.
    """
    rows, cols = (size * fine for size in maze.wall.shape)
    moves = [(a, b) for a in range(-3, 4) for b in range(-3, 4) if math.gcd(a, b) == 1]
    at = np.stack(np.meshgrid(np.arange(rows) + 0.5, np.arange(cols) + 0.5, indexing="ij"), axis=-1) / fine
    hair = 1e-3 * np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
    free = {}
    for move in moves:
        along = np.linspace(0, 1, 13)[:, None] * np.array(move) / fine
        cells = np.floor(at[:, :, None, None] + along[:, None] + hair).astype(int)
        cells = np.clip(cells, 0, np.array(maze.wall.shape) - 1)
        free[move] = ~maze.wall[cells[..., 0], cells[..., 1]].any(axis=(-1, -2))
    here, there = ((row * fine + fine // 2, col * fine + fine // 2) for row, col in (start, goal))
    best, heap = {here: 0.0}, [(0.0, here)]
    while heap:
        far, (row, col) = heapq.heappop(heap)
        if (row, col) == there:
            return far / fine
        for a, b in moves:
            point, length = (row + a, col + b), far + math.hypot(a, b)
            if free[a, b][row, col] and length < best.get(point, math.inf):
                best[point] = length
                heapq.heappush(heap, (length, point))
    return math.inf


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_length_against_a_fine_lattice(data: st.DataObject) -> None:
    """Never longer than a way over the lattice, and shorter by no more than the lattice's detours."""
    rows, cols, fine = data.draw(st.integers(2, 4)), data.draw(st.integers(2, 4)), 5
    inner = data.draw(st.lists(st.lists(st.integers(0, 1), min_size=cols, max_size=cols), min_size=rows, max_size=rows))
    plan = [[1] * (cols + 2), *([1, *row, 1] for row in inner), [1] * (cols + 2)]
    maze = Maze(plan)
    if len(maze.free_cells) < 2:
        return
    a, b = (data.draw(st.sampled_from(maze.free_cells)) for _ in range(2))
    lattice = grid_length(maze, a, b, fine)
    exact = maze.shortest_length(maze.cell_to_xy(a), maze.cell_to_xy(b))
    joined = maze.distances_to(b)[a] >= 0
    assert math.isfinite(exact) == joined == math.isfinite(lattice)
    if joined:
        assert exact <= lattice + 1e-9
        assert lattice <= 1.03 * exact + 0.35  # corners are passed at a lattice point, up to a fifth of a cell away


@pytest.mark.parametrize("env_id", MAZES)
def test_length_is_a_metric_bounded_by_line_and_cells(env_id: str) -> None:
    maze, rng = maze_of(env_id), np.random.default_rng(1)
    for _ in range(60):
        cells = [maze.free_cells[rng.integers(len(maze.free_cells))] for _ in range(3)]
        a, b, c = (maze.cell_to_xy(cell) + rng.uniform(-0.4, 0.4, 2) for cell in cells)
        length = maze.shortest_length(a, b)
        assert length == pytest.approx(maze.shortest_length(b, a))
        assert np.linalg.norm(a - b) - 1e-9 <= length <= maze.shortest_length(a, c) + maze.shortest_length(c, b) + 1e-9
        to_centres = np.linalg.norm(a - maze.cell_to_xy(cells[0])) + np.linalg.norm(b - maze.cell_to_xy(cells[1]))
        assert length <= maze.steps_between(cells[0], cells[1]) + to_centres + 1e-9
