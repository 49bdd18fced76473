"""What a pipeline file may say of goals drawn anew. Knows no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from toolkit.config import Share, Strict


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
    """Goals drawn anew for each batch, by default as OGBench does (arXiv:2410.20092); rewards follow from them."""

    value: GoalShares = GoalShares()
    """Goals that the values are learned for."""
    policy: PolicyGoals | None = None
    """Goals that the policy is learned for; null takes those of the values, as HER does (arXiv:1707.01495)."""
