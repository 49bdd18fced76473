"""Scripted controllers for the Fetch arm: reach, push, pick and place, slide.

All read the observation alone, as Fetch publishes it: gripper, object, object seen from the gripper, two fingers,
rotation, velocities (metres a step of 0.04 s, the object's relative to the gripper's). An action moves the gripper by
up to 5 cm a step along each axis and opens (1) or closes (-1) its fingers. What to do follows at each step from where
things are, so a push, a slip or noise costs time and nothing else.
"""

from __future__ import annotations

import math

import numpy as np

from toolkit.controllers.scripted import Action, Controller
from toolkit.types import Floats, Observation, ToolkitError

_STEP = 0.05  # metres that an action of 1 moves the gripper
_DT = 0.04  # seconds a step
_HEIGHT = 0.025  # half an object's edge, metres
_OPEN, _CLOSED = 1.0, -1.0


def _towards(grip: Floats, target: Floats, fingers: float, gain: float = 0.4) -> Action:
    """Close `gain` of the distance in the next step."""
    x, y, z = (gain * (target - grip) / _STEP).tolist()
    return x, y, z, fingers


class _Memoryless:
    """Looks at where things are and at nothing else."""

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Nothing is remembered."""


class ReachController(_Memoryless):
    """Straight to the goal."""

    def act(self, observation: Observation) -> Action:
        """Three numbers of motion, one of the fingers."""
        return _towards(observation["observation"][:3], observation["desired_goal"], 0.0)


class PickAndPlaceController(_Memoryless):
    """Above the object, down around it, close, carry; begins again whenever it has lost it."""

    def act(self, observation: Observation) -> Action:
        """Three numbers of motion, one of the fingers."""
        seen = observation["observation"]
        grip, thing, width = seen[:3], seen[3:6], float(seen[9] + seen[10])
        aside, above = math.dist(grip[:2], thing[:2]), float(grip[2] - thing[2])
        if aside > 0.05 or (aside > 0.02 and above < 0.04):
            return _towards(grip, thing + np.array([0.0, 0.0, 0.08]), _OPEN)
        if above > 0.008 or aside > 0.02:
            return _towards(grip, thing, _OPEN)
        if width > 2 * _HEIGHT + 0.003:
            return _towards(grip, thing, _CLOSED)
        return _towards(grip, observation["desired_goal"], _CLOSED)


class PushController(_Memoryless):
    """Over the top to the far side of the object, down behind it, then along the line to the goal."""

    behind = 0.055  # metres from the object's middle to the gripper's

    def act(self, observation: Observation) -> Action:
        """Three numbers of motion, one of the fingers."""
        seen, goal = observation["observation"], observation["desired_goal"]
        grip, thing = seen[:3], seen[3:6]
        left, along, ahead, beside = _line(grip, thing, goal)
        if left < 0.01:
            return 0.0, 0.0, 0.0, _CLOSED
        place = np.append(thing[:2] - self.behind * along, thing[2])
        is_behind = ahead <= -0.035 and math.hypot(*beside) <= 0.02
        if not is_behind and math.dist(grip[:2], place[:2]) > 0.02:
            high = thing[2] + 0.09
            low_beside_it = grip[2] < high - 0.04 and math.dist(grip[:2], thing[:2]) < 0.09
            over = grip[:2] if low_beside_it else place[:2]
            return _towards(grip, np.append(over, high), _CLOSED)
        if grip[2] > thing[2] + 0.02:
            return _towards(grip, place, _CLOSED)
        return _towards(grip, np.append(goal[:2] - 0.04 * along - beside, thing[2]), _CLOSED, gain=0.25)


class SlideController:
    """Round behind the puck, then push it straight at the speed that friction takes away on the way to the goal."""

    behind = 0.12  # metres of run-up
    # metres a second, lost each second: less than the table's 0.1 g, since a push outlasts the look that ends it
    slowing = 0.08 * 9.81
    lead = 1.3  # of the speed asked of the gripper, which lags

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """The puck has not been struck."""
        self._ready = self._struck = False

    def act(self, observation: Observation) -> Action:
        """Three numbers of motion, one of the fingers."""
        seen, goal = observation["observation"], observation["desired_goal"]
        grip, puck = seen[:3], seen[3:6]
        left, along, _, beside = _line(grip, puck, goal)
        if self._struck:
            return -0.5 * along[0], -0.5 * along[1], 0.5, _CLOSED
        if not self._ready:
            place = np.append(puck[:2] - self.behind * along, puck[2])
            self._ready = math.dist(grip, place) < 0.01
            if math.dist(grip[:2], place[:2]) <= 0.02:
                return _towards(grip, place, _CLOSED)
            over = grip[:2] if grip[2] < puck[2] + 0.06 else place[:2]
            return _towards(grip, np.append(over, puck[2] + 0.1), _CLOSED)
        speed = float((seen[14:16] + seen[20:22]) @ along) / _DT
        wanted = math.sqrt(2 * self.slowing * left)
        self._struck = speed >= wanted
        x, y = ((self.lead * wanted * _DT * along - 0.4 * beside) / _STEP).tolist()
        return x, y, 0.0, _CLOSED


def _line(grip: Floats, thing: Floats, goal: Floats) -> tuple[float, Floats, float, Floats]:
    """From object to goal on the table: how far, the direction, how far ahead of the object the gripper is, and its
    offset from the line."""
    way = goal[:2] - thing[:2]
    left = float(np.linalg.norm(way))
    along = way / max(left, 1e-6)
    ahead = float((grip[:2] - thing[:2]) @ along)
    return left, along, ahead, grip[:2] - thing[:2] - ahead * along


_SKILLS: dict[str, type[Controller]] = {
    "FetchReach": ReachController,
    "FetchPush": PushController,
    "FetchPickAndPlace": PickAndPlaceController,
    "FetchSlide": SlideController,
}


def fetch_controller(env_id: str) -> Controller:
    """The one for a simulator, FetchPush-v4 or the like. Raises ToolkitError for others."""
    name = env_id.partition("-")[0].removesuffix("Dense")
    if name not in _SKILLS:
        raise ToolkitError(f"controller fetch: expected a task in {', '.join(_SKILLS)}, got {env_id}")
    return _SKILLS[name]()
