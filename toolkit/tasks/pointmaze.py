"""gymnasium-robotics' PointMaze, placed and stepped without its own goal and reward handling.

The model, the maze and the rendering are the library's. Drawing starts and goals, success, reward and time limit
belong to the task card, so none of the environment's bookkeeping runs here. `PointMaze.step` makes the same MuJoCo
calls as the library's step without the checks and copies between them, which take most of its time; a test holds the
two equal to the last bit.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from toolkit.maze import Maze
from toolkit.tasks.registry import registry_spec
from toolkit.types import ToolkitError

SCALE = 1.0  # metres a cell; PointMazeEnv fixes it
GOAL_DIM = 2
TOP_SPEED = 5.0  # metres a second along each axis; PointEnv clips the velocity before each step

_making = threading.Lock()
Observation = dict[str, npt.NDArray[Any]]
T = TypeVar("T")


def is_maze(env_id: str) -> bool:
    """Whether an environment is one of PointMaze's."""
    return env_id.startswith("PointMaze_")


def maze_of(env_id: str, maze_map: Sequence[Sequence[int | str]] | None = None) -> Maze:
    """Geometry of a registered maze, or of `maze_map` where one replaces it. Equal arguments give the same object."""
    rows = registry_spec(env_id).kwargs["maze_map"] if maze_map is None else maze_map
    return _maze(tuple(tuple(row) for row in rows))


@lru_cache(maxsize=64)
def _maze(rows: tuple[tuple[int | str, ...], ...]) -> Maze:
    return Maze(rows, SCALE)


class PointMaze:
    """One simulated ball: `place` it, then `step` it.

    The state is (x, y, vx, vy) in metres and metres a second, (x, y) the achieved goal.
    """

    def __init__(self, env_id: str, env_kwargs: dict[str, Any], render_mode: str | None = None) -> None:
        registry_spec(env_id)
        # The library writes the maze's XML beside the system's temporary folder under a name made from the clock:
        # it stays for ever, and two processes that start together meet. A folder of our own ends both.
        arguments = env_kwargs if render_mode is None else {**env_kwargs, "render_mode": render_mode}
        with _making, tempfile.TemporaryDirectory(prefix="maze-") as folder:
            usual, tempfile.tempdir = tempfile.tempdir, folder
            try:
                made: Any = gymnasium.make(env_id, disable_env_checker=True, **arguments)
            finally:
                tempfile.tempdir = usual
        self.env_spec = made.spec
        self._env: Any = made.unwrapped
        self._ball: Any = self._env.point_env  # the MuJoCo environment inside
        self._bind(self._ball.model, self._ball.data)
        self._goal = np.zeros(GOAL_DIM)
        self.observation_space: Any = self._env.observation_space
        self.action_space: Any = self._env.action_space
        self.maze = maze_of(env_id, env_kwargs.get("maze_map"))

    def place(self, xy: npt.NDArray[np.float64], goal_xy: npt.NDArray[np.float64]) -> Observation:
        """Put the resting ball at `xy` and the marker of the goal at `goal_xy`; the first observation."""
        self._env.goal = self._goal = goal_xy
        self._env.update_target_site_pos()
        self._ball.init_qpos[:2] = xy
        self._ball.reset()
        return self.observe()

    def step(self, action: npt.NDArray[np.floating[Any]]) -> Observation:
        """Push the ball for one control period of 0.01 s; the next observation."""
        np.maximum(self._velocity, -TOP_SPEED, out=self._velocity)
        np.minimum(self._velocity, TOP_SPEED, out=self._velocity)
        mujoco.mj_forward(self._model, self._data)
        np.maximum(action, -1.0, out=self._force)
        np.minimum(self._force, 1.0, out=self._force)
        mujoco.mj_step(self._model, self._data)
        return self.observe()

    def mujoco(self) -> Any:
        """The environment inside that holds MuJoCo's model and data."""
        return self._ball

    def observe(self) -> Observation:
        """What the present state looks like."""
        state = np.empty(4)
        state[:2] = self._position
        state[2:] = self._velocity
        return {"observation": state, "achieved_goal": state[:GOAL_DIM].copy(), "desired_goal": self._goal.copy()}

    def _bind(self, model: Any, data: Any) -> None:
        """Views of the simulator's own memory, which stays in place for the life of `data`."""
        self._model, self._data = model, data
        self._position, self._velocity, self._force = data.qpos, data.qvel, data.ctrl

    def twin(self) -> PointMaze:
        """Another ball in the same compiled maze: compiling takes a tenth of a second and megabytes, this neither.

        The twins move independently; only the goal's marker is shared, so a twin cannot render.
        """
        twin, env, ball = _shallow(self), _shallow(self._env), _shallow(self._ball)
        ball.data = mujoco.MjData(ball.model)
        twin._bind(ball.model, ball.data)
        ball.init_qpos = ball.init_qpos.copy()
        ball.mujoco_renderer = None
        ball.render_mode = None
        env.point_env, twin._env, twin._ball = ball, env, ball
        return twin

    def render(self) -> Any:
        """A picture of the maze as the render mode has it."""
        if self._ball.mujoco_renderer is None:
            raise ToolkitError("a twin cannot render; make an environment with make_env(card, render_mode='rgb_array')")
        return self._env.render()

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()


def _shallow(thing: T) -> T:
    """A new object with the same attributes; copy.copy would rebuild these environments from their arguments."""
    made = object.__new__(type(thing))
    made.__dict__.update(thing.__dict__)
    return made
