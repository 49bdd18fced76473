"""A scripted controller for the Franka arm in its kitchen: opens the microwave, turns on the light, slides a cabinet.

It reads the observation alone, as FrankaKitchen publishes it: the arm's 7 joints and two fingers, their velocities,
then the joints of the kitchen and theirs. Where hand and handles are follows from MuJoCo's own model at those joints.
All three handles are upright bars before the arm, so one way of grasping does: in front of the bar, forward until it
is between the fingers, and along with it. What to do follows at each step from where things are, so a slip or noise
costs time and nothing else.

The inverse kinematics is a damped least-squares step on MuJoCo's Jacobian that leaves out joints at their limits. A
library such as mink solves a quadratic program for the same step; that would be two more dependencies for ten lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium_robotics
import mujoco
import numpy as np

from toolkit.controllers.scripted import Action
from toolkit.types import Floats, Observation, ToolkitError

_MODEL = "envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"
_ARM, _ROBOT = 7, 9  # joints of the arm, and with its fingers
_DT = 0.08  # seconds a step
_AHEAD = 2 * _DT  # radians that an action of 1 puts a servo's target ahead of its joint
_REACH = 0.04  # metres of motion asked for in a step, at most
_NEAR = 0.27  # from a joint's goal where it is done; the simulator's word is 0.3
_GRIPPED = 0.052  # metres between the fingers when they hold a bar, at most
_BEFORE = np.array([0.0, -0.03, 0.0])  # from a bar to the hand that has it between its fingers, metres
_FACING = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # hand forward, fingers side by side
_REST = np.array([0.15, -1.3, 1.6, -2.1, 0.3, 1.0, 1.6])  # what the joint to spare drifts to, radians
_DAMPING = 1e-3
_MARGIN = 0.02  # radians from a joint's limit


class _Handle(NamedTuple):
    """A bar that moves one joint of the kitchen."""

    site: str
    joint: int  # number in qpos
    goal: float  # of the joint, as the simulator has it
    grip: bool = False  # whether it has to be pulled; others are pushed by one finger


HANDLES = {
    "microwave": _Handle("microhandle_site", 22, -0.75, grip=True),
    "light switch": _Handle("light_site", 17, -0.69),
    "slide cabinet": _Handle("slide_site", 19, 0.37),
}


class KitchenController:
    """Does the tasks that are left, in the order given."""

    def __init__(self, env_id: str, tasks: Sequence[str]) -> None:
        """Raises ToolkitError for another simulator than the kitchen."""
        if env_id.partition("-")[0] != "FrankaKitchen":
            raise ToolkitError(f"controller kitchen: expected a task in FrankaKitchen, got {env_id}")
        self._handles = [HANDLES[task] for task in tasks]
        model: Any = mujoco.MjModel.from_xml_path(str(Path(gymnasium_robotics.__file__).parent / _MODEL))
        self._model, self._data = model, mujoco.MjData(model)
        self._hand = model.site("end_effector").id
        self._stiffness = model.actuator_gainprm[:_ARM, 0]
        # a servo against its joint's damping is a lag: the part of the way to its target that a step covers
        self._share = 1 - np.exp(-_DT * self._stiffness / model.dof_damping[:_ARM])
        self._low, self._high = model.jnt_range[:_ARM].T + np.array([[_MARGIN], [-_MARGIN]])

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation) -> Action:
        """Velocities of the arm's joints and the fingers, nine shares of the greatest."""
        self._look(observation["observation"])
        at = self._data.qpos
        for handle in self._handles:
            if abs(at[handle.joint] - handle.goal) > _NEAR:
                step, fingers = self._towards(handle)
                break
        else:
            step, fingers = np.zeros(3), 1.0
        return (*self._velocities(step).tolist(), fingers, fingers)

    def _look(self, seen: Floats) -> None:
        """Put the model where the observation says."""
        model, data = self._model, self._data
        data.qpos[:_ROBOT] = seen[:_ROBOT]
        data.qpos[_ROBOT:] = seen[2 * _ROBOT : _ROBOT + model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)

    def _towards(self, handle: _Handle) -> tuple[Floats, float]:
        """Metres the hand should go, (3,), and what the fingers should do: 1 opens, -1 closes them."""
        data = self._data
        bar = data.site(handle.site)
        offset: Floats = data.site_xpos[self._hand] - bar.xpos - _BEFORE
        aside, behind = math.hypot(offset[0], offset[2]), -float(offset[1])
        if aside > 0.06 or (aside > 0.03 and behind < 0.07):
            clear = behind - 0.17  # a hand this far back passes before everything
            return np.array([0.0, clear, 0.0]) if behind < 0.14 else np.array([-offset[0], clear, -offset[2]]), 1.0
        if behind > 0.02:
            return -offset * (1.0, max(0.0, 1.0 - aside / 0.03), 1.0), 1.0  # forward only in line with the bar
        if handle.grip and data.qpos[_ARM] + data.qpos[_ARM + 1] > _GRIPPED:
            return -offset, -1.0
        way = self._jacobian(bar.id)[:3, handle.joint] * (handle.goal - data.qpos[handle.joint])
        return 0.1 * way / np.linalg.norm(way) - offset, -1.0 if handle.grip else 1.0

    def _velocities(self, step: Floats) -> Floats:
        """Of the arm's joints, (7,), as shares of the greatest, that move the hand along `step` (3,) in metres."""
        model, data = self._model, self._data
        step = step * min(0.5, _REACH / max(float(np.linalg.norm(step)), 1e-9))
        axes = data.site_xmat[self._hand].reshape(3, 3)
        turn = np.clip(0.25 * np.cross(axes, _FACING, axis=0).sum(axis=1), -0.1, 0.1)
        move = self._joints(np.concatenate([step, turn]))
        weight = np.zeros(model.nv)
        data.qvel[:] = 0.0
        mujoco.mj_comVel(model, data)
        mujoco.mj_rne(model, data, 0, weight)
        velocities: Floats = (move / self._share + weight[:_ARM] / self._stiffness) / _AHEAD
        return velocities

    def _joints(self, wanted: Floats) -> Floats:
        """Radians (7,) by which the hand moves and turns as `wanted` (6,); joints that would leave their range stay."""
        q, jacobian = self._data.qpos[:_ARM], self._jacobian(self._hand)[:, :_ARM]
        free = np.ones(_ARM)
        while True:
            drift = free * 0.1 * (_REST - q)
            reach = jacobian * free
            pull = np.linalg.solve(reach @ reach.T + _DAMPING * np.eye(6), wanted - jacobian @ drift)
            move: Floats = drift + reach.T @ pull
            out = ((q + move < self._low) & (move < 0)) | ((q + move > self._high) & (move > 0))
            if not out.any():
                return move
            free[out] = 0.0

    def _jacobian(self, site: int) -> Floats:
        """Of a site's position and rotation, (6, nv)."""
        jacobian = np.zeros((6, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], site)
        return jacobian
