"""The four-legged ant in a maze: the library's AntMaze without contact forces and its word on falls."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from toolkit.tasks.maze_task import MazeTask
from toolkit.types import Observation


class AntMaze(MazeTask):
    """Eight torques move it. A fall ends nothing; a test holds steps equal to the library's.

    The state (29,): x, y, z (m), orientation (quaternion w, x, y, z), then hip and ankle (rad) of the legs at 45, 135,
    225 and 315 degrees; velocities of all that in the same order, the rotation's about the torso's own axes.
    """

    inner = "ant_env"

    def step(self, action: npt.NDArray[np.floating[Any]]) -> Observation:
        """Turn the joints for one control period of 0.05 s; the next observation."""
        self._force[:] = action  # the model itself clips it
        mujoco.mj_step(self._model, self._data, nstep=self._robot.frame_skip)
        return self.observe()
