"""Blocks of a training stage's settings: the mix of a batch, hindsight goals, the guard. Knows no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from toolkit.config import Share, Strict


class FixedMix(Strict):
    """The same share of each batch from the data set, from first to last."""

    kind: Literal["fixed"] = "fixed"
    offline: Share = 0.5
    """Share of a batch drawn from the data set."""


class ProportionalMix(Strict):
    """Every stored transition equally likely: the data set's share falls as experience grows."""

    kind: Literal["proportional"] = "proportional"


class AnnealedMix(Strict):
    """The data set's share moves in a straight line."""

    kind: Literal["annealed"] = "annealed"
    offline: Share = 0.5
    """Share of a batch drawn from the data set at the switch."""
    offline_end: Share = 0.0
    """Share after `over_steps`, and from then on."""
    over_steps: PositiveInt
    """Environment steps the change takes."""


Mix = Annotated[FixedMix | ProportionalMix | AnnealedMix, Field(discriminator="kind")]


class GoalShares(Strict):
    """Where goals drawn anew come from; what the shares leave is what the data achieved anywhere."""

    own: Share = 0.0
    """Share of transitions that keep their recorded goal."""
    current: Share = 0.2
    """Share that strives for what the transition itself achieves."""
    future: Share = 0.5
    """Share that strives for what the same episode achieves some steps later."""
    distance: Literal["geometric", "uniform"] = "geometric"
    """How many steps later: geometric with mean 1 / (1 - gamma), or all that are left equally likely."""

    @model_validator(mode="after")
    def _at_most_all(self) -> GoalShares:
        total = self.own + self.current + self.future
        if total > 1.0 + 1e-9:
            raise ValueError(f"expected own + current + future of at most 1, got {total:g}")
        return self


class PolicyGoals(GoalShares):
    """The same for the policy, which learns the way to goals that lie ahead."""

    current: Share = 0.0
    """Share that strives for what the transition itself achieves."""
    future: Share = 1.0
    """Share that strives for what the same episode achieves some steps later."""
    distance: Literal["geometric", "uniform"] = "uniform"
    """How many steps later: geometric with mean 1 / (1 - gamma), or all that are left equally likely."""


class RelabelGoals(Strict):
    """Hindsight goals for each batch, by default as in OGBench (arXiv:2410.20092); rewards follow from them."""

    value: GoalShares = GoalShares()
    """Goals that the values are learned for."""
    policy: PolicyGoals | None = PolicyGoals()
    """Goals that the policy is learned for; null takes those of the values, as HER does (arXiv:1707.01495)."""


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
