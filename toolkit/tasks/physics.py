"""How a task's physics differs from the simulator's own: a robot is never the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mujoco
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from toolkit.config import Strict
from toolkit.types import ToolkitError

_OF_MODEL = ("mass", "friction", "damping", "gain")


class Physics(Strict):
    """Factors on the simulator's own numbers, noise and delay."""

    mass: PositiveFloat = 1.0
    """Factor on mass and inertia of every body."""
    friction: NonNegativeFloat = 1.0
    """Factor on the friction of every contact: sliding, torsional and rolling."""
    damping: NonNegativeFloat = 1.0
    """Factor on the damping of every joint."""
    gain: PositiveFloat = 1.0
    """Factor on the force of every actuator."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of the noise on each number the policy sees of the state, in that number's own unit."""
    delay: NonNegativeInt = Field(0, le=1_000)
    """Steps by which actions come late; before the first comes, zeros do, or the first of several choices."""

    def alter(self, model: Any, task: str) -> None:
        """Change a MuJoCo model in place; None stands for a simulator that has none.

        Raises ToolkitError where a factor other than 1 would do nothing.
        """
        changed = [name for name in _OF_MODEL if getattr(self, name) != 1.0]
        if not changed:
            return
        if not isinstance(model, mujoco.MjModel):
            raise ToolkitError(f"physics.{changed[0]}: task {task} is not simulated by MuJoCo; expected noise or delay")
        for name, why in _idle(model):
            if name in changed:
                raise ToolkitError(f"physics.{name}: changes nothing in task {task}, where {why}; expected 1")
        model.body_mass[:] *= self.mass
        model.body_inertia[:] *= self.mass
        model.geom_friction[:] *= self.friction
        model.pair_friction[:] *= self.friction  # of pairs whose contact the model itself describes
        model.dof_damping[:] *= self.damping
        model.actuator_gainprm[:] *= self.gain
        model.actuator_biasprm[:] *= self.gain  # what a position servo pulls back with
        mujoco.mj_setConst(model, mujoco.MjData(model))  # what the model keeps of masses


def _idle(model: mujoco.MjModel) -> Iterator[tuple[str, str]]:
    """Factors that cannot change anything, and why; a sweep of one would pass for robustness."""
    if not _rubs(model):
        yield "friction", "all contacts are without friction"
    if not model.dof_damping.any():
        yield "damping", "no joint is damped"
    if not (model.actuator_gainprm.any() or model.actuator_biasprm.any()):
        yield "gain", "no actuator moves anything"


def _rubs(model: mujoco.MjModel) -> bool:
    """Whether a contact with friction is possible, for all the model says; soft bodies are taken to have some."""
    body, rough = model.body_weldid[model.geom_bodyid], model.geom_condim > 1
    may = (model.geom_contype[:, None] & model.geom_conaffinity) != 0
    may = (may | may.T) & (body[:, None] != body)  # what is welded together never touches
    return bool((may & (rough[:, None] | rough)).any() or (model.pair_dim > 1).any() or model.nflex)
