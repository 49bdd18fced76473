"""OGBench's point and ant in its mazes, without its own tasks, rewards and noise at a reset.

A card draws starts and goals, so a reset follows from the seed alone. The library's does not: it draws from NumPy's
global generator. Nor are the ant's joints turned a little, as they are there.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from toolkit.tasks.antmaze import AntMaze
from toolkit.tasks.maze_task import MazeTask
from toolkit.types import Observation

REACH = 0.2  # metres along each axis that a full action moves the point


class OgbenchMaze(MazeTask):
    """A maze that is its own robot: the library makes both one environment."""

    inner = "unwrapped"

    def place(self, xy: npt.NDArray[np.float64], goal_xy: npt.NDArray[np.float64]) -> Observation:
        """Put the resting robot at `xy` and the marker of the goal at `goal_xy`; the first observation."""
        self._goal = goal_xy
        self._env.set_goal(goal_xy=goal_xy)
        mujoco.mj_resetData(self._model, self._data)
        self._position[: len(xy)] = xy
        mujoco.mj_forward(self._model, self._data)
        return self.observe()

    def _around(self, robot: Any) -> Any:
        return robot


class OgbenchPoint(OgbenchMaze):
    """The state is (x, y) in metres: an action moves the point, and it does not roll on."""

    def step(self, action: npt.NDArray[np.floating[Any]]) -> Observation:
        """Move for one control period of 0.1 s, pushed back by walls; the next observation."""
        self._position += REACH * np.clip(action, -1.0, 1.0)
        self._data.qvel[:] = 0.0
        mujoco.mj_step(self._model, self._data, nstep=self._robot.frame_skip)
        return self.observe()

    def observe(self) -> Observation:
        """What the present state looks like."""
        place = self._position.copy()
        return {"observation": place, "achieved_goal": place.copy(), "desired_goal": self._goal.copy()}

    def _bind(self, model: Any, data: Any) -> None:
        super()._bind(model, data)
        self._size = self._places


class OgbenchAnt(OgbenchMaze, AntMaze):
    """Steps and state (29,) are AntMaze's, with a control period of 0.1 s and joints that turn less far."""
