"""A trot for the ant: in any direction, without turning the body, by a PD law on joint angles.

Diagonal legs go together, the two pairs in turn. On the ground a foot moves against the heading and in the air with it:
as far as the heading is across the leg its hip turns, as far as it is along the leg its ankle stretches. There is no
clock. Where in the cycle the legs are is read from the joints, and the law pulls them to where they should be a little
later, so that what the ant does follows from what it sees, which is all that a policy can imitate.
"""

from __future__ import annotations

import numpy as np

from toolkit.controllers.scripted import Action, Way
from toolkit.maze import Maze
from toolkit.types import Floats, Observation

CUT = 0.5  # of corners: legs reach farther than a ball does

_AZIMUTH = np.deg2rad([45.0, 135.0, 225.0, 315.0])  # of each leg, seen from above
_LEGS = np.stack([np.cos(_AZIMUTH), np.sin(_AZIMUTH)])
_DOWN = np.array([1.0, -1.0, -1.0, 1.0])  # the sense of each ankle in which it bends down
_PAIR = np.array([1.0, -1.0, 1.0, -1.0])

# Found by random search for speed with noise and turns, until the first fall.
_AHEAD = 1.6  # rad of the cycle
_TURN = 0.134  # rad, of the hips
_STRETCH = 0.455  # rad, of the ankles
_BEND = 1.07  # rad, of the ankles in the middle
_LIFT = 0.337  # rad, of the ankles in the air
_LIFTED = 0.274  # rad by which they differ then
_LEVEL = 0.4  # rad, of the ankles on the low side of a tilted torso against those on the high side
_STIFF, _DAMP = 2.74, 0.202  # of full torque, by rad and rad a second


def trot(state: Floats, heading: Floats) -> Floats:
    """Torques (..., 8) that walk an ant in state (..., 29), as AntMaze has it, along headings (...) in rad."""
    w, x, y, z = np.moveaxis(state[..., 3:7], -1, 0)
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    angle = (heading - yaw)[..., None] - _AZIMUTH
    across, along = np.sin(angle), np.cos(angle)  # (..., 4)
    high = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x)], -1) @ _LEGS  # how far up each leg's side is
    hip, ankle = state[..., 7:15:2], state[..., 8:15:2] * _DOWN
    swung = (_PAIR * across * hip).sum(-1) / (2 * _TURN)
    lifted = (_PAIR * ankle).sum(-1) / (2 * _LIFTED)
    phase = np.arctan2(lifted, swung)[..., None] + _AHEAD
    swing, lift = _PAIR * np.cos(phase), np.maximum(0.0, -_PAIR * np.sin(phase))
    hip_torque = _STIFF * (_TURN * across * swing - hip) - _DAMP * state[..., 21:29:2]
    bend = _BEND - _STRETCH * along * swing - _LIFT * lift - _LEVEL * high
    ankle_torque = _DOWN * _STIFF * (bend - ankle) - _DAMP * state[..., 22:29:2]
    torque = np.stack([hip_torque, ankle_torque], -1)
    return np.roll(torque, 1, axis=-2).reshape(*state.shape[:-1], 8)  # the actuators begin with the fourth leg


class AntController:
    """Trots along the shortest string of cells."""

    def __init__(self, maze: Maze) -> None:
        self._way = Way(maze, CUT)

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Plan for this observation's goal. The controller itself draws nothing."""
        self._way.lead_to(observation["desired_goal"])

    def act(self, observation: Observation) -> Action:
        """Eight torques as shares of the greatest."""
        state = observation["observation"]
        x, y = state[:2].tolist()
        aim_x, aim_y = self._way.aim(x, y)
        torque: list[float] = trot(state, np.arctan2(aim_y - y, aim_x - x)).tolist()
        return tuple(torque)
