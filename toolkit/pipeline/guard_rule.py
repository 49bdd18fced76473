"""What a pipeline file may say of the guard. Knows no torch."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from toolkit.config import Share, Strict


class GuardRule(Strict):
    """Each seed whose success falls goes back to the best it had, and on from there more gently."""

    drop: float = Field(0.2, gt=0.0, lt=1.0)
    """Mean success so far below the seed's best evaluation is a fall."""
    over: PositiveInt = 2
    """Evaluations that the mean is of, the last ones."""
    lr_policy: float = Field(0.2, gt=0.0, le=1.0)
    """What each roll-back multiplies the policy's learning rate by."""
    offline: Share = 0.75
    """Least share of the data set in each batch after a roll-back, where the data is kept."""
