"""Coverage of hand-made trajectories in a small maze, and of random ones against loops."""

from __future__ import annotations

import itertools
import time

import numpy as np
import numpy.typing as npt

from toolkit.maze import Maze
from toolkit.stitching import Piece, Stitches, coverage, exits
from toolkit.types import Episodes

# row 1 is a corridor of five cells, (1, 1) to (1, 5); (2, 3) hangs below its middle
MAP = [[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 1], [1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]
MAZE = Maze(MAP, 1.0)
GOAL = (1, 5)


def through(*cells: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A path along the centres of cells."""
    return MAZE.cell_to_xy(np.array(cells))


def make_episodes(*paths: npt.ArrayLike) -> Episodes:
    points = [np.asarray(path, np.float32) for path in paths]
    rows = np.concatenate(points) if points else np.zeros((0, 2), np.float32)
    count = len(rows)
    zeros, flags = np.zeros(count, np.float32), np.zeros(count, bool)
    starts = np.concatenate([[0], np.cumsum([len(p) for p in points])]).astype(np.int64)
    return Episodes(rows, rows, rows, np.zeros((count, 2), np.float32), zeros, flags, flags, starts)


def cover(*paths: npt.ArrayLike, radius: float = 0.45):
    return coverage(make_episodes(*paths), MAZE, MAZE.cell_to_xy(GOAL), radius)


def test_two_pieces_that_stitch() -> None:
    found = cover(through((1, 1), (1, 2), (1, 3)), through((1, 3), (1, 4), (1, 5)))
    assert found.far_starts == [(1, 1), (1, 2)]
    assert {tuple(map(int, c)) for c in np.argwhere(found.joined)} == {(1, 3), (1, 4), (1, 5)}
    assert found.edges.tolist() == [[[1, c], [1, c + 1]] for c in (1, 2, 3, 4)]
    assert found.reachable[1, 1:6].all()
    assert found.visits[1, 3] == 2
    assert found.summary() == {
        "visited_cells": 5,
        "cell_edges": 4,
        "joined_cells": 3,
        "far_starts": [[1, 1], [1, 2]],
        "far_starts_stitchable": 2,
    }


def test_direction_matters() -> None:
    found = cover(through((1, 3), (1, 2), (1, 1)), through((1, 3), (1, 4), (1, 5)))
    assert found.far_starts == [(1, 1), (1, 2)]
    assert not found.reachable[1, 1]
    assert found.summary()["far_starts_stitchable"] == 0


def test_what_follows_the_goal_is_not_joined() -> None:
    found = cover(through((1, 4), (1, 5), (1, 4), (1, 3)))
    assert found.far_starts == [(1, 3)]
    found = cover(through((1, 4), (1, 5), (1, 4), (1, 3), (1, 4), (1, 5)))
    assert found.far_starts == []


def test_the_goal_is_its_radius_not_its_cell() -> None:
    edge = MAZE.cell_to_xy(GOAL) - [0.49, 0.0]
    near = [MAZE.cell_to_xy((1, 4)), edge]
    assert cover(near).far_starts == [(1, 4)]  # in the goal's cell, outside the radius; the goal's cell is no start
    assert cover(near, radius=0.5).far_starts == []
    beside = [
        MAZE.cell_to_xy((1, 3)),
        MAZE.cell_to_xy((1, 4)) + np.array([0.3, 0.0]),
    ]  # ends as it arrives, in the cell before
    assert cover(beside).edges.tolist() == [[[1, 3], [1, 4]]]
    assert cover(beside, radius=0.8).edges.tolist() == [[[1, 3], [1, 4]], [[1, 4], [1, 5]]]


def test_an_episode_does_not_continue_into_the_next() -> None:
    found = cover(through((1, 1)), through((1, 2), (1, 3)), through((1, 4), (1, 5)))
    assert found.edges.tolist() == [[[1, 2], [1, 3]], [[1, 4], [1, 5]]]
    assert found.far_starts == [(1, 1), (1, 2), (1, 3)]


def test_unvisited_cells_and_places_off_the_map() -> None:
    found = cover(through((1, 4), (1, 5)), [[100.0, 0.0], [0.0, -100.0]], through((0, 0), (1, 1)))
    assert found.far_starts == [(1, 1)]
    assert not found.visited[2, 3]
    assert found.visits.sum() == 3


def test_no_episodes() -> None:
    found = cover()
    assert found.far_starts == []
    assert found.edges.shape == (0, 2, 2)


def test_random_walks_against_loops() -> None:
    rng = np.random.default_rng(0)
    paths = []
    for _ in range(40):
        cells = [MAZE.free_cells[rng.integers(len(MAZE.free_cells))]]
        for _ in range(rng.integers(0, 8)):
            around = MAZE.neighbours(cells[-1])
            cells.append(around[rng.integers(len(around))])
        paths.append(cells)
    for size in (3, 40):
        found = cover(*[through(*cells) for cells in paths[:size]])
        joined, edges, visited = set(), set(), set()
        for cells in paths[:size]:
            visited |= set(cells)
            edges |= {(a, b) for a, b in itertools.pairwise(cells) if a != b}
            if GOAL in cells:
                joined |= set(cells[: len(cells) - cells[::-1].index(GOAL)])
        assert {tuple(map(int, c)) for c in np.argwhere(found.joined)} == joined
        assert {(tuple(a), tuple(b)) for a, b in found.edges.tolist()} == edges
        assert found.far_starts == sorted(visited - joined - {GOAL})


def test_fast_enough_for_a_whole_data_set() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 100, 2000)
    walks = [rng.uniform(-2.5, 2.5, 2) + np.cumsum(rng.normal(0, 0.05, (n, 2)), 0) for n in lengths]
    episodes = make_episodes(*walks)
    assert len(episodes.obs) > 100_000
    began = time.process_time()
    coverage(episodes, MAZE, MAZE.cell_to_xy(GOAL), 0.45)
    assert time.process_time() - began < 0.5


def brute_stitches(paths: list[list[int]], size: int) -> npt.NDArray[np.int64]:
    """Breadth first over (trajectory, time): moving on is free, changing to another row in the same cell costs one."""
    found = np.full((size, size), -1)
    nodes = [(e, t) for e, path in enumerate(paths) for t in range(len(path))]
    for start in range(size):
        cost = {node: 0 for node in nodes if paths[node[0]][node[1]] == start}
        layer = list(cost)
        for count in itertools.count():
            while layer:  # forward in time on the same trajectory
                e, t = layer.pop()
                if (e, t + 1) in set(nodes) and cost.get((e, t + 1), count + 1) > count:
                    cost[e, t + 1] = count
                    layer.append((e, t + 1))
            here = {paths[e][t] for e, t in cost}
            layer = [node for node in nodes if node not in cost and paths[node[0]][node[1]] in here]
            if not layer:
                break
            cost |= dict.fromkeys(layer, count + 1)
        for (e, t), count in cost.items():
            goal = paths[e][t]
            found[start, goal] = count if found[start, goal] < 0 else min(found[start, goal], count)
    return found


def walk(rng: np.random.Generator, maze: Maze) -> list[tuple[int, int]]:
    cell = maze.free_cells[rng.integers(len(maze.free_cells))]
    cells = [cell]
    for _ in range(rng.integers(0, 5)):
        near = [*maze.neighbours(cell), cell]
        cell = near[rng.integers(len(near))]
        cells.append(cell)
    return cells


def test_stitches_equal_brute_force() -> None:
    """1,000 random mazes of at most nine free cells, each with up to five short random walks."""
    rng = np.random.default_rng(0)
    deepest = 0
    for _ in range(1000):
        wall = np.pad((rng.random((3, 3)) < 0.3).astype(int), 1, constant_values=1)
        if wall.all():
            continue
        maze = Maze(wall.tolist(), 1.0)
        walks = [walk(rng, maze) for _ in range(rng.integers(1, 6))]
        found = Stitches(make_episodes(*(maze.cell_to_xy(np.array(cells)) for cells in walks)), maze)
        expected = brute_stitches([[row * 5 + col for row, col in cells] for cells in walks], 25)
        assert np.array_equal(found.table.reshape(25, 25), expected)
        deepest = max(deepest, int(expected.max()))
        goal = walks[0][-1]
        to_goal = found.to_point(maze.cell_to_xy(np.array(goal)), 0.45)
        assert np.array_equal(to_goal, found.table[:, :, goal[0], goal[1]])
        start, goal = walks[0][0], walks[-1][-1]
        check_route(found, maze, walks, start, goal)
    assert deepest >= 3


def check_route(found: Stitches, maze: Maze, walks: list[list[tuple[int, int]]], start, goal) -> None:
    """The pieces are what the count says: joined end to start, forward in time, each within one trajectory."""
    starts = np.cumsum([0, *map(len, walks)])
    rows = [cell for cells in walks for cell in cells]
    route = found.pieces(start, goal)
    assert len(route) == found.table[(*start, *goal)] + 1
    here = start
    for piece in route:
        assert starts[piece.episode] <= piece.first <= piece.last < starts[piece.episode + 1]
        assert rows[piece.first] == here
        here = rows[piece.last]
    assert not route or here == goal


def test_stitches_of_a_large_data_set_take_seconds() -> None:
    rng = np.random.default_rng(0)
    wall = np.pad((rng.random((14, 14)) < 0.2).astype(int), 1, constant_values=1)
    maze = Maze(wall.tolist(), 1.0)
    corners = maze.cell_to_xy(np.array(maze.free_cells))
    steps = rng.normal(0, 0.15, (5000, 201, 2)).cumsum(1)
    paths = corners[rng.integers(len(corners), size=5000), None] + steps
    began = time.process_time()
    found = Stitches(make_episodes(*paths), maze)
    assert found.table.max() >= 1
    found.to_point(corners[0], 0.45)
    assert time.process_time() - began < 5


def test_pieces_near_a_point() -> None:
    episodes = make_episodes(through((1, 1), (1, 2), (1, 3)), through((2, 3), (1, 3), (1, 4), (1, 5)))
    found = Stitches(episodes, MAZE)
    goal = MAZE.cell_to_xy(np.array(GOAL))
    assert found.pieces((1, 1), near=(goal, 0.45)) == [Piece(0, 0, 2), Piece(1, 4, 6)]
    assert found.pieces((1, 5), (1, 1)) == []
    assert found.to_point(goal, 0.45)[1, 1:6].tolist() == [1, 1, 0, 0, 0]


def test_a_trajectory_that_joins_itself() -> None:
    """(1, 1) comes after the goal cell, but on both sides of it (1, 2) is visited: back to then is a stitch."""
    found = Stitches(make_episodes(through((1, 2), (1, 3), (1, 2), (1, 1), (1, 2))), MAZE)
    assert found.table[1, 1, 1, 3] == 1
    assert found.pieces((1, 1), (1, 3)) == [Piece(0, 3, 4), Piece(0, 0, 1)]


def test_exits_of_a_junction() -> None:
    """(1, 3) has three neighbours: two trajectories enter it from the left, and part there."""
    right, down = through((1, 2), (1, 3), (1, 4)), through((1, 2), (1, 3), (2, 3))
    found = exits(make_episodes(right, right, down, through((1, 4), (1, 3), (1, 2)), through((1, 2), (1, 3))), MAZE)
    assert found == {"entries": 2, "exits": 1.5, "best_guess": 0.75}
    assert exits(make_episodes(through((1, 1), (1, 2))), MAZE) == {"entries": 0, "exits": None, "best_guess": None}
