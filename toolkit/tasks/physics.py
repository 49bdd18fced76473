"""How a task's physics differs from the simulator's own: a robot is never the simulator."""

from __future__ import annotations

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
        if self.friction != 1.0 and (model.geom_condim == 1).all():
            raise ToolkitError(f"physics.friction: contacts in task {task} are without friction; expected 1")
        model.body_mass[:] *= self.mass
        model.body_inertia[:] *= self.mass
        model.geom_friction[:] *= self.friction
        model.dof_damping[:] *= self.damping
        model.actuator_gainprm[:] *= self.gain
        model.actuator_biasprm[:] *= self.gain  # what a position servo pulls back with
        mujoco.mj_setConst(model, mujoco.MjData(model))  # what the model keeps of masses
