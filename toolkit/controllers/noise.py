"""Action noise, drawn for a whole episode at once: action = scale * action + shift, then clipped to [-1, 1]."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from toolkit.config import Share, Strict
from toolkit.types import Floats

Affine = tuple[Floats, Floats]  # scale (T, 1) and shift (T, A)


class _Noise(Strict):
    """What all kinds have."""

    def draw(self, rng: np.random.Generator, steps: int, action_dim: int) -> Affine:
        """Scale and shift of each step."""
        return np.ones((steps, 1)), np.zeros((steps, action_dim))

    def late(self, rng: np.random.Generator) -> int:
        """Steps by which the controller's actions come late in an episode; nothing is done before the first."""
        return 0


class NoNoise(_Noise):
    """The controller's own actions."""

    kind: Literal["none"]


class GaussianNoise(_Noise):
    """Independent normal noise added to each number of each action."""

    kind: Literal["gaussian"]
    std: float = Field(ge=0, le=10)
    """Standard deviation; actions are in [-1, 1]."""

    def draw(self, rng: np.random.Generator, steps: int, action_dim: int) -> Affine:
        """Scale and shift of each step."""
        return np.ones((steps, 1)), rng.normal(0.0, self.std, (steps, action_dim))


class OrnsteinUhlenbeckNoise(_Noise):
    """Normal noise that drifts: correlated over about `steps` steps, the same spread at every time."""

    kind: Literal["ornstein-uhlenbeck"]
    std: float = Field(ge=0, le=10)
    """Standard deviation at any one step."""
    steps: float = Field(10.0, ge=1)
    """Steps after which the correlation has fallen to 1/e."""

    def draw(self, rng: np.random.Generator, steps: int, action_dim: int) -> Affine:
        """Scale and shift of each step."""
        return np.ones((steps, 1)), drift(rng, steps, action_dim, self.std, self.steps)


class EpsilonNoise(_Noise):
    """Now and then a uniformly random action in place of the controller's."""

    kind: Literal["epsilon-random"]
    epsilon: Share
    """Share of random actions."""

    def draw(self, rng: np.random.Generator, steps: int, action_dim: int) -> Affine:
        """Scale and shift of each step."""
        kept = (rng.random((steps, 1)) >= self.epsilon).astype(np.float64)
        return kept, (1.0 - kept) * rng.uniform(-1.0, 1.0, (steps, action_dim))


class BurstNoise(_Noise):
    """Normal noise, and now and then a push: the same random action for some steps in place of the controller's.

    Pushes carry a robot to where its controller never leads it, such as against walls, and what follows shows the way
    back: recordings for a policy that has to recover from its own mistakes.
    """

    kind: Literal["bursts"]
    share: Share
    """Share of steps in pushes."""
    steps: int = Field(10, ge=1)
    """Length of a push."""
    std: float = Field(0.0, ge=0, le=10)
    """Standard deviation of the normal noise outside of pushes; actions are in [-1, 1]."""

    def draw(self, rng: np.random.Generator, steps: int, action_dim: int) -> Affine:
        """Scale and shift of each step."""
        blocks = -(-steps // self.steps) + 1
        at = np.arange(steps) + rng.integers(self.steps)  # so that pushes begin at any step
        pushed = (rng.random(blocks) < self.share).astype(np.float64)[at // self.steps, None]
        push = rng.uniform(-1.0, 1.0, (blocks, action_dim))[at // self.steps]
        between = rng.normal(0.0, self.std, (steps, action_dim))
        return 1.0 - pushed, np.where(pushed > 0, push, between)


class GainNoise(_Noise):
    """Actuators that are stronger or weaker than the controller thinks, each episode anew."""

    kind: Literal["gain"]
    spread: float = Field(gt=0, le=2)
    """Standard deviation of the gain's logarithm: 0.1 is about 10 %."""

    def draw(self, rng: np.random.Generator, steps: int, action_dim: int) -> Affine:
        """Scale and shift of each step."""
        gain = float(np.exp(rng.normal(0.0, self.spread)))
        return np.full((steps, 1), gain), np.zeros((steps, action_dim))


class DelayNoise(_Noise):
    """Actions that arrive late, by as many steps in the whole of an episode."""

    kind: Literal["delay"]
    steps: int = Field(ge=1, le=100)
    """Longest delay; each one up to it is equally likely, none too."""

    def late(self, rng: np.random.Generator) -> int:
        """The delay of one episode."""
        return int(rng.integers(self.steps + 1))


Noise = Annotated[
    NoNoise | GaussianNoise | OrnsteinUhlenbeckNoise | EpsilonNoise | BurstNoise | GainNoise | DelayNoise,
    Field(discriminator="kind"),
]


def drift(rng: np.random.Generator, steps: int, width: int, std: float, correlation: float) -> Floats:
    """A stationary Ornstein-Uhlenbeck path (steps, width) whose memory is `correlation` steps."""
    keep = float(np.exp(-1.0 / correlation))
    kicks = rng.normal(0.0, std, (steps, width))
    kicks[1:] *= np.sqrt(1.0 - keep**2)
    path = kicks.tolist()
    for row, before in zip(path[1:], path, strict=False):
        for index in range(width):
            row[index] += keep * before[index]
    return np.array(path).reshape(steps, width)
