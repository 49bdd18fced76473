"""A library's mazes, placed and stepped without their own goal and reward handling.

The model, the maze and the rendering are the library's. Starts and goals are drawn as a task card says, and success,
reward and time limit are the card's too, so none of the environment's bookkeeping runs here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from toolkit.maze import Cell
from toolkit.tasks.actions import Choices, Scaled, pushes
from toolkit.tasks.card import TaskCard
from toolkit.tasks.mazes import make_library
from toolkit.tasks.plain import Own
from toolkit.types import Observation, ToolkitError

GOAL_DIM = 2
_OPTIONS = ("start_cell", "goal_cell")

T = TypeVar("T")


class MazeTask(ABC):
    """One robot in a maze; `reset` takes the options `start_cell` and `goal_cell`, which may be left out.

    The observation is MuJoCo's `qpos` and `qvel`, whose first two numbers (x, y), in metres, are the achieved goal.
    """

    own = Own()  # success, reward and end are the card's
    inner: ClassVar[str]
    """Attribute of the library's environment that holds the MuJoCo environment inside."""

    def __init__(self, card: TaskCard, render_mode: str | None = None) -> None:
        self._card = card
        arguments = card.env_kwargs if render_mode is None else {**card.env_kwargs, "render_mode": render_mode}
        made = make_library(card.env_id, arguments)
        self.env_spec = made.spec
        self._env: Any = made.unwrapped
        self._robot: Any = getattr(self._env, self.inner)
        self._bind(self._robot.model, self._robot.data)
        self._goal = np.zeros(GOAL_DIM)
        sizes = {"observation": self._size, "achieved_goal": GOAL_DIM, "desired_goal": GOAL_DIM}
        boxes: Any = {name: gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in sizes.items()}
        self.observation_space: Any = gymnasium.spaces.Dict(boxes)
        self.maze = card.maze
        card.physics.alter(self._model, card.name)
        space = self._env.action_space
        self.actions: Scaled | Choices = pushes(card.directions) if card.directions else Scaled(space)

    @abstractmethod
    def step(self, action: npt.NDArray[np.floating[Any]]) -> Observation:
        """Apply an action for one control period; the next observation."""

    def reset(self, rng: np.random.Generator, options: dict[str, Any]) -> Observation:
        """Draw start and goal, or take the given cells, and place the robot at rest."""
        card = self._card
        goal_cell, start_cell = self._cells(rng, options)
        exact = goal_cell == card.goal.cell  # the task's own goal is its cell's centre, others are drawn around it
        goal = self._scatter(rng, goal_cell, 0.0 if exact else card.goal.noise)
        goal = goal.astype(np.float32).astype(np.float64)  # what is stored as float32 is what was played
        return self.place(self._scatter(rng, start_cell, card.start.noise), goal)

    def place(self, xy: npt.NDArray[np.float64], goal_xy: npt.NDArray[np.float64]) -> Observation:
        """Put the resting robot at `xy` and the marker of the goal at `goal_xy`; the first observation."""
        self._env.goal = self._goal = goal_xy
        self._env.update_target_site_pos()
        self._robot.init_qpos[:2] = xy
        self._robot.reset()
        return self.observe()

    def observe(self) -> Observation:
        """What the present state looks like."""
        state = np.empty(self._size)
        state[: self._places] = self._position
        state[self._places :] = self._velocity
        return {"observation": state, "achieved_goal": state[:GOAL_DIM].copy(), "desired_goal": self._goal.copy()}

    def mujoco(self) -> Any:
        """The environment inside that holds MuJoCo's model and data."""
        return self._robot

    def twin(self) -> MazeTask:
        """Another robot in the same compiled maze: compiling takes a tenth of a second and megabytes, this neither.

        The twins move independently; only the goal's marker is shared, so a twin cannot render.
        """
        twin, robot = _shallow(self), _shallow(self._robot)
        robot.data = mujoco.MjData(robot.model)
        twin._bind(robot.model, robot.data)
        robot.init_qpos = robot.init_qpos.copy()
        robot.mujoco_renderer = None
        robot.render_mode = None
        twin._env, twin._robot = twin._around(robot), robot
        return twin

    def render(self) -> Any:
        """A picture of the maze as the render mode has it."""
        if self._robot.mujoco_renderer is None:
            raise ToolkitError("a twin cannot render; make an environment with make_env(card, render_mode='rgb_array')")
        return self._env.render()

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()

    def _around(self, robot: Any) -> Any:
        """The library's environment with this one inside."""
        env = _shallow(self._env)
        setattr(env, self.inner, robot)
        return env

    def _bind(self, model: Any, data: Any) -> None:
        """Views of the simulator's own memory, which stays in place for the life of `data`."""
        self._model, self._data = model, data
        self._position, self._velocity, self._force = data.qpos, data.qvel, data.ctrl
        self._places, self._size = model.nq, model.nq + model.nv

    def _cells(self, rng: np.random.Generator, options: dict[str, Any]) -> tuple[Cell, Cell]:
        """The goal's and the start's cell: given, fixed by the card, or drawn; of the card's tasks one as it is."""
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise ToolkitError(f"reset options {unknown} are unknown; expected {list(_OPTIONS)}")
        given_start, given_goal = (self._given(options, name) for name in _OPTIONS)
        if self._card.tasks and not (given_start or given_goal):
            start, goal = self._card.tasks[rng.integers(len(self._card.tasks))]
            return goal, start
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
        return self.maze.cell_to_xy(cell) + rng.uniform(-noise, noise, GOAL_DIM)


def _shallow(thing: T) -> T:
    """A new object with the same attributes; copy.copy would rebuild these environments from their arguments."""
    made = object.__new__(type(thing))
    made.__dict__.update(thing.__dict__)
    return made
