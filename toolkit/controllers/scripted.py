"""Scripted controllers: a waypoint follower for mazes and a smooth random walk."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from toolkit.controllers.noise import drift
from toolkit.maze import Cell, Maze
from toolkit.types import Observation

Action = tuple[float, ...]


class Controller(Protocol):
    """Something that acts on Dict observations for one episode at a time."""

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Begin an episode of at most `steps` steps, or go on in it to another goal; all randomness is from `rng`."""

    def act(self, observation: Observation) -> Action:
        """The next action, A numbers; those outside [-1, 1] are clipped by who applies them."""


class Way:
    """Where to go next on the shortest string of cells to a goal.

    The aim is on the way from the next cell's centre to its doorway to the one after: the doorway itself (`cut` 1)
    cuts corners by a margin that is safe for a ball, and aiming at centres makes routes a fifth longer; beside and in
    the goal's cell it is the goal itself. The string is looked up from the present cell at every step, so a push off
    the path costs a detour and nothing else.
    """

    def __init__(self, maze: Maze, cut: float = 1.0) -> None:
        self._maze, self._cut = maze, cut
        self._aims: dict[Cell, dict[Cell, tuple[float, float]]] = {}  # goal cell -> cell -> the point to aim at
        self._aim_from: dict[Cell, tuple[float, float]] = {}
        self._aim = (0.0, 0.0)

    def lead_to(self, goal: npt.NDArray[np.float64]) -> None:
        """From now on lead to this goal, (2,) in metres."""
        row, col = self._maze.xy_to_cell(goal).tolist()
        goal_cell = (row, col)
        if goal_cell not in self._aims:
            self._aims[goal_cell] = self._plan(goal_cell)
        x, y = goal.tolist()
        self._aim_from = {**self._aims[goal_cell], goal_cell: (x, y)}
        for neighbour in self._maze.neighbours(goal_cell):
            self._aim_from[neighbour] = (x, y)
        self._aim = (x, y)

    def aim(self, x: float, y: float) -> tuple[float, float]:
        """The point to go straight to from (x, y), all in metres."""
        maze = self._maze
        cell = (math.floor((maze.top - y) / maze.scale), math.floor((x - maze.left) / maze.scale))
        self._aim = self._aim_from.get(cell, self._aim)  # pressed into a wall: keep the aim
        return self._aim

    def _plan(self, goal: Cell) -> dict[Cell, tuple[float, float]]:
        reachable = self._maze.distances_to(goal) >= 0
        plan = {}
        for cell in self._maze.free_cells:
            if reachable[cell]:
                coming = self._maze.toward(cell, goal)
                centre, after = self._maze.cell_to_xy([coming, self._maze.toward(coming, goal)])
                point = centre + self._cut * (after - centre) / 2
                plan[cell] = (float(point[0]), float(point[1]))
        return plan


class WaypointController:
    """Drives a ball along the shortest string of cells with a PD law, or a point that keeps no speed with a P law."""

    def __init__(self, maze: Maze, stiffness: float, damping: float) -> None:
        self._stiff = stiffness / maze.scale  # action per cell of distance, here per metre
        self._damp = damping / maze.scale  # action per cell a second
        self._way = Way(maze)

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Plan for this observation's goal; the state is (x, y, vx, vy) or (x, y). It draws nothing itself."""
        self._way.lead_to(observation["desired_goal"])

    def act(self, observation: Observation) -> Action:
        """Force towards the next waypoint, (fx, fy) as a share of the greatest."""
        x, y, *speed = observation["observation"].tolist()
        vx, vy = speed or (0.0, 0.0)
        aim_x, aim_y = self._way.aim(x, y)
        return self._stiff * (aim_x - x) - self._damp * vx, self._stiff * (aim_y - y) - self._damp * vy


class RandomController:
    """Wanders: each action drifts smoothly, so the ball explores instead of trembling on the spot."""

    def __init__(self, std: float, correlation: float, action_dim: int) -> None:
        self.std = std
        self.correlation = correlation  # steps
        self.action_dim = action_dim
        self._actions: list[Action] = []

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Draw the actions of the whole episode, last first."""
        path = drift(rng, steps, self.action_dim, self.std, self.correlation).tolist()
        self._actions = [tuple(action) for action in reversed(path)]

    def act(self, observation: Observation) -> Action:
        """The next action of the walk."""
        return self._actions.pop()
