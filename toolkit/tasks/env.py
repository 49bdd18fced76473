"""A task card as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from toolkit.maze import Cell, Maze
from toolkit.tasks.card import TaskCard
from toolkit.tasks.pointmaze import GOAL_DIM, PointMaze
from toolkit.types import Spec, ToolkitError

Observation = dict[str, npt.NDArray[np.float64]]
_OPTIONS = ("start_cell", "goal_cell")


class TaskEnv(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """Dict observations `observation`, `achieved_goal`, `desired_goal`; actions in [-1, 1], scaled to the bounds.

    Reward and success follow the card; success terminates, `card.max_episode_steps` truncates, and
    `info["is_success"]` is always there. `reset(seed=..., options={"start_cell": ..., "goal_cell": ...})`: both
    options may be left out, and the seed and the options together determine the whole reset.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(self, card: TaskCard, render_mode: str | None = None) -> None:
        self.card = card
        self.render_mode = render_mode
        self._simulator = PointMaze(card.env_id, card.env_kwargs, render_mode)
        self.observation_space = self._simulator.observation_space
        bounds = self._simulator.action_space
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, bounds.shape, np.float32)
        self._middle, self._half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
        self._unscaled = bool((self._middle == 0).all() and (self._half == 1).all())
        self._goal = np.zeros(GOAL_DIM)
        self._goal_near = self._goal.astype(np.float32)
        self._steps = 0

    @property
    def maze(self) -> Maze:
        """Geometry of the maze the task is played in."""
        return self._simulator.maze

    @property
    def sizes(self) -> Spec:
        """Sizes of a policy's input and of an action."""
        state = self.observation_space["observation"].shape[0]  # type: ignore[index]
        goal = GOAL_DIM * self.card.goal.observed
        return Spec(state + goal, int(np.prod(self.action_space.shape or ())), goal)

    @property
    def env_spec(self) -> Any:
        """The registered specification of the simulated environment, with the arguments it was made with."""
        return self._simulator.env_spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw start and goal as the card says, or take the given cells, and place the ball at rest."""
        super().reset(seed=seed)
        goal_cell, start_cell = self._cells(options or {})
        exact = goal_cell == self.card.goal.cell  # the task's own goal is its cell's centre, others are drawn around it
        goal = self._scatter(goal_cell, 0.0 if exact else self.card.goal.noise)
        self._goal_near = goal.astype(np.float32)
        self._goal = self._goal_near.astype(np.float64)  # what is stored as float32 is what was played
        state = self._simulator.place(self._scatter(start_cell, self.card.start.noise), self._goal)
        self._steps = 0
        return self._observe(state), {"is_success": self._reached(state)}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one action in [-1, 1], (A,); what lies outside is clipped by the simulator."""
        state = self._simulator.step(action if self._unscaled else self._middle + self._half * action)
        self._steps += 1
        success = self._reached(state)
        reward = self.card.reward.success if success else self.card.reward.step
        truncated = not success and self._steps >= self.card.max_episode_steps
        return self._observe(state), reward, success, truncated, {"is_success": success}

    def twin(self) -> TaskEnv:
        """An independent environment of the same task that shares the compiled maze; it cannot render."""
        twin = object.__new__(TaskEnv)
        twin.__dict__.update(self.__dict__)
        twin._simulator = self._simulator.twin()
        twin._np_random = None
        return twin

    def render(self) -> Any:
        """A frame (H, W, 3) uint8, where the environment was made with render_mode="rgb_array"."""
        return self._simulator.render()

    def close(self) -> None:
        """Free the renderer."""
        self._simulator.close()

    def _reached(self, state: npt.NDArray[np.float64]) -> bool:
        """The card's rule; most steps are so far off that a glance at one coordinate answers it."""
        if abs(state[0] - self._goal[0]) > 1.01 * self.card.goal.radius:
            return False
        return bool(self.card.reached(state[:GOAL_DIM], self._goal_near))

    def _observe(self, state: npt.NDArray[np.float64]) -> Observation:
        return {"observation": state, "achieved_goal": state[:GOAL_DIM].copy(), "desired_goal": self._goal.copy()}

    def _cells(self, options: dict[str, Any]) -> tuple[Cell, Cell]:
        """The goal's and the start's cell: given, fixed by the card, or drawn."""
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise ToolkitError(f"reset options {unknown} are unknown; expected {list(_OPTIONS)}")
        given_start, given_goal = (self._given(options, name) for name in _OPTIONS)
        goal = given_goal or self.card.goal.cell or self._draw(self.maze.free_cells, given_start)
        start = given_start or self._draw(self.card.start_cells, goal)
        if start == goal:
            raise ToolkitError(f"start_cell and goal_cell are both {list(start)}; expected two different cells")
        return goal, start

    def _given(self, options: dict[str, Any], name: str) -> Cell | None:
        cell = options.get(name)
        if cell is None:
            return None
        if len(cell) != 2 or not self.maze.is_free(cell):
            free = [list(free) for free in self.maze.free_cells]
            raise ToolkitError(f"{name}: expected a free cell (row, col) of {self.card.name}, got {cell}; free: {free}")
        return int(cell[0]), int(cell[1])

    def _draw(self, cells: list[Cell], other: Cell | None) -> Cell:
        choices = [cell for cell in cells if cell != other]
        if not choices:
            raise ToolkitError(f"task {self.card.name}: no cell left to draw from beside {other}; widen start.cells")
        return choices[self.np_random.integers(len(choices))]

    def _scatter(self, cell: Cell, noise: float) -> npt.NDArray[np.float64]:
        centre = self.maze.cell_to_xy(cell)
        return centre + self.np_random.uniform(-noise, noise, GOAL_DIM) * self.maze.scale


def make_env(card: TaskCard, render_mode: str | None = None) -> TaskEnv:
    """The environment a card describes; `render_mode="rgb_array"` for pictures."""
    return TaskEnv(card, render_mode)
