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
        # plain numbers: on arrays of two, NumPy's functions would take a fifth of the step
        vx, vy = self._velocity.tolist()
        if abs(vx) > TOP_SPEED or abs(vy) > TOP_SPEED:
            np.clip(self._velocity, -TOP_SPEED, TOP_SPEED, out=self._velocity)
        mujoco.mj_forward(self._model, self._data)
        fx, fy = action.tolist()
        self._force[:] = min(max(fx, -1.0), 1.0), min(max(fy, -1.0), 1.0)
        mujoco.mj_step(self._model, self._data)
        return self.observe()
