"""PointMaze with starts and goals drawn as a task card says: one of the two simulators behind `TaskEnv`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.maze import Cell
from toolkit.tasks.actions import Choices, Scaled, pushes
from toolkit.tasks.card import TaskCard
from toolkit.tasks.plain import Own
from toolkit.tasks.pointmaze import GOAL_DIM, Observation, PointMaze
from toolkit.types import ToolkitError

_OPTIONS = ("start_cell", "goal_cell")


class MazeTask(PointMaze):
    """One ball; `reset` takes the options `start_cell` and `goal_cell`, which may be left out."""

    own = Own()  # success, reward and end are the card's

    def __init__(self, card: TaskCard, render_mode: str | None = None) -> None:
        super().__init__(card.env_id, card.env_kwargs, render_mode)
        card.physics.alter(self._model, card.name)
        self._card = card
        self.actions: Scaled | Choices = pushes(card.directions) if card.directions else Scaled(self.action_space)

    def reset(self, rng: np.random.Generator, options: dict[str, Any]) -> Observation:
        """Draw start and goal, or take the given cells, and place the ball at rest."""
        card = self._card
        goal_cell, start_cell = self._cells(rng, options)
        exact = goal_cell == card.goal.cell  # the task's own goal is its cell's centre, others are drawn around it
        goal = self._scatter(rng, goal_cell, 0.0 if exact else card.goal.noise)
        goal = goal.astype(np.float32).astype(np.float64)  # what is stored as float32 is what was played
        return self.place(self._scatter(rng, start_cell, card.start.noise), goal)

    def _cells(self, rng: np.random.Generator, options: dict[str, Any]) -> tuple[Cell, Cell]:
        """The goal's and the start's cell: given, fixed by the card, or drawn."""
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise ToolkitError(f"reset options {unknown} are unknown; expected {list(_OPTIONS)}")
        given_start, given_goal = (self._given(options, name) for name in _OPTIONS)
        goal = given_goal or self._card.goal.cell or self._draw(rng, self.maze.free_cells, given_start)
        start = given_start or self._draw(rng, self._card.start_cells, goal)
        if start == goal:
            raise ToolkitError(f"start_cell and goal_cell are both {list(start)}; expected two different cells")
        return goal, start

    def _given(self, options: dict[str, Any], name: str) -> Cell | None:
        cell = options.get(name)
        if cell is None:
            return None
        if len(cell) != 2 or not self.maze.is_free(cell):
            free = [list(free) for free in self.maze.free_cells]
            raise ToolkitError(
                f"{name}: expected a free cell (row, col) of {self._card.name}, got {cell}; free: {free}"
            )
        return int(cell[0]), int(cell[1])

    def _draw(self, rng: np.random.Generator, cells: list[Cell], other: Cell | None) -> Cell:
        choices = [cell for cell in cells if cell != other]
        if not choices:
            raise ToolkitError(f"task {self._card.name}: no cell left to draw from beside {other}; widen start.cells")
        return choices[rng.integers(len(choices))]

    def _scatter(self, rng: np.random.Generator, cell: Cell, noise: float) -> npt.NDArray[np.float64]:
        centre = self.maze.cell_to_xy(cell)
        return centre + rng.uniform(-noise, noise, GOAL_DIM) * self.maze.scale
