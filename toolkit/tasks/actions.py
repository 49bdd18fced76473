"""What a policy's action means to a simulator: numbers scaled to its bounds, or one of several choices.

An action is a vector of `dim` numbers inside this package, in recorded data too; of a choice it is one-hot, and the
largest number counts. A controller steers with `control_dim` numbers in [-1, 1], and `nearest` makes an action of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from toolkit.types import FloatArray, ToolkitError

T = TypeVar("T")


class Scaled:
    """Numbers in [-1, 1], scaled to the bounds of a Box."""

    discrete = False

    def __init__(self, bounds: spaces.Box) -> None:
        low, high = bounds.low, bounds.high
        if low.ndim != 1 or not np.isfinite(high - low).all() or (low >= high).any():
            raise ToolkitError(
                f"action space {bounds}: expected a Box of one axis with finite bounds, each low below its high, or "
                "Discrete"
            )
        self.dim = self.control_dim = len(low)
        self.space = self.recorded = spaces.Box(-1.0, 1.0, bounds.shape, np.float32)
        self.bounds = low.tolist(), high.tolist()  # what -1 and 1 stand for in the simulator
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self._unscaled = bool((self._middle == 0).all() and (self._half == 1).all())

    def apply(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the simulator takes for an action (A,)."""
        return action if self._unscaled else self._middle + self._half * action

    def nearest(self, control: T) -> T:
        """The action a controller asks for."""
        return control


class Choices:
    """One of n actions, given one-hot (n,) or as its index.

    `controls` (n, C) says what each choice means to a controller, `taken` what the simulator takes for it.
    """

    discrete = True

    def __init__(self, controls: npt.ArrayLike, taken: Sequence[Any]) -> None:
        self._controls, self._taken = np.asarray(controls, np.float64), list(taken)
        self.dim, self.control_dim = self._controls.shape
        self._hot: FloatArray = np.eye(self.dim, dtype=np.float32)
        self.space = spaces.Discrete(self.dim)
        self.recorded = spaces.Box(-1.0, 1.0, (self.dim,), np.float32)

    def apply(self, action: npt.NDArray[Any] | int) -> Any:
        """What the simulator takes for an action."""
        if np.ndim(action):
            return self._taken[int(np.argmax(action))]
        if not 0 <= int(action) < self.dim:
            raise ToolkitError(f"action {action}: expected a number from 0 to {self.dim - 1}, or {self.dim} numbers")
        return self._taken[int(action)]

    def nearest(self, control: npt.ArrayLike) -> FloatArray:
        """The choice closest to what a controller asks for, (..., C) -> one-hot (..., n)."""
        offset = self._controls - np.asarray(control)[..., None, :]
        action: FloatArray = self._hot[(offset * offset).sum(axis=-1).argmin(axis=-1)]
        return action


def pushes(directions: int) -> Choices:
    """To stand still, or a full push in one of so many directions, evenly spread from east counter-clockwise."""
    angle = np.arange(directions) * 2 * np.pi / directions
    controls = np.round(np.stack([np.cos(angle), np.sin(angle)], axis=1), 12)
    controls = np.concatenate([np.zeros((1, 2)), controls])
    return Choices(controls, list(controls))
