"""The on-policy ladder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from toolkit.agents.configs.base import AgentConfig

Rung = Annotated[
    Literal["returns", "returns-baseline", "mc", "td", "q", "gae"],
    Field(description="What makes an action better than others: its return, that against the mean, or a critic."),
]


class PolicyGradientConfig(AgentConfig):
    """Learning rates of Spinning Up's policy gradient (Achiam 2018); no paper gives defaults for the whole ladder."""

    on_policy = True

    advantage: Rung = "gae"
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """How far advantages look along the rollout ("gae"): 1 is as "mc", 0 is as "td"."""
    critic_updates: PositiveInt = 10
    """Steps of the critic on each rollout; the policy makes one."""
    normalize: bool = False
    """Whether advantages are scaled to mean 0 and standard deviation 1 in each rollout."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the policy's entropy, which keeps it exploring."""
    lr: PositiveFloat = 1e-3
    """Learning rate of every network that has none of its own."""
    lr_policy: PositiveFloat | None = 3e-4
    """Learning rate of the policy; null is `lr`."""

    @property
    def updates_per_rollout(self) -> int:
        """How often a rollout is learned from: more often where a critic goes on alone."""
        return 1 if self.whole_episodes else self.critic_updates

    @property
    def whole_episodes(self) -> bool:
        """Whether there is no critic, so that only episodes seen to their end teach anything."""
        return self.advantage in ("returns", "returns-baseline")


class ReinforceConfig(PolicyGradientConfig):
    """REINFORCE."""

    advantage: Rung = "returns"


class ReinforceBaselineConfig(PolicyGradientConfig):
    """REINFORCE against the mean return."""

    advantage: Rung = "returns-baseline"


class ActorCriticMCConfig(PolicyGradientConfig):
    """V by Monte Carlo."""

    advantage: Rung = "mc"


class ActorCriticTDConfig(PolicyGradientConfig):
    """V by temporal differences."""

    advantage: Rung = "td"


class ActorCriticQConfig(PolicyGradientConfig):
    """Q by temporal differences."""

    advantage: Rung = "q"
