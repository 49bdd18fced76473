"""The ball in a maze: the library's PointMaze without the checks and copies that take most of its time."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from toolkit.tasks.maze_task import MazeTask
from toolkit.types import Observation

TOP_SPEED = 5.0  # metres a second along each axis; PointEnv clips the velocity before each step


class PointMaze(MazeTask):
    """The state is (x, y, vx, vy) in metres and metres a second; a test holds steps equal to the library's."""

    inner = "point_env"

    def step(self, action: npt.NDArray[np.floating[Any]]) -> Observation:
        """Push the ball for one control period of 0.01 s; the next observation."""
        np.maximum(self._velocity, -TOP_SPEED, out=self._velocity)
        np.minimum(self._velocity, TOP_SPEED, out=self._velocity)
        mujoco.mj_forward(self._model, self._data)
        np.maximum(action, -1.0, out=self._force)
        np.minimum(self._force, 1.0, out=self._force)
        mujoco.mj_step(self._model, self._data)
        return self.observe()
