"""Critics and a policy that climbs them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from toolkit.agents.configs.base import AgentConfig, Hidden, Members, Polyak

Chunk = Annotated[
    PositiveInt, Field(description="Actions decided on at once and played in a row; rewards are added up over as many.")
]


class TD3Config(AgentConfig):
    """Defaults of the authors' code."""

    policy_every: PositiveInt = 2
    """Critic updates to one update of the policy, at least; all of an environment step where `utd` is larger."""
    polyak: Polyak = 0.005
    """Share mixed into the targets: the policy's with each of its updates, the critics' in `policy_every` of theirs."""
    target_noise: NonNegativeFloat = 0.2
    """Standard deviation of the noise on the target's action."""
    target_noise_max: NonNegativeFloat = 0.5
    """Bound of that noise."""
    explore_std: NonNegativeFloat = 0.1
    """Standard deviation of the noise on actions in the simulator."""
    members: Members = 2
    """Critics; the smallest counts in the target."""
    layer_norm: bool = False
    """LayerNorm in the critics."""


class TD3BCConfig(TD3Config):
    """Defaults of the paper."""

    alpha: NonNegativeFloat = 2.5
    """Weight of the critics, scaled to a mean size of 1, beside imitation; 0 imitates."""


class ReBRACConfig(TD3Config):
    """Networks of the paper and its penalties for AntMaze, with rewards 100 times larger there; tune these first."""

    hidden: Hidden = (256, 256, 256)
    """Widths of the hidden layers of every network."""
    lr: PositiveFloat = 1e-3
    """Learning rate of every network."""
    layer_norm: bool = True
    """LayerNorm in the critics."""
    alpha_policy: NonNegativeFloat = 0.003
    """Weight of the policy's squared distance to the data, beside critics scaled to a mean size of 1."""
    alpha_critic: NonNegativeFloat = 0.002
    """Weight of the next action's squared distance to the data in the target, in units of reward; 0 suits practice."""


class SACConfig(AgentConfig):
    """Defaults of the paper."""

    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: Members = 2
    """Critics."""
    subset: PositiveInt | None = None
    """Critics drawn anew for each target, of which the smallest counts; null takes all."""
    replacement: bool = False
    """Whether the same critic may be drawn twice into the subset."""
    layer_norm: bool = False
    """LayerNorm in the critics."""
    policy_layer_norm: bool = False
    """LayerNorm in the policy."""
    actor_q: Literal["min", "mean"] = "min"
    """What of the critics the policy climbs."""
    entropy_backup: bool = True
    """Whether the target counts the entropy of the next action."""
    temperature: PositiveFloat = 1.0
    """Weight of the entropy at the start."""
    target_entropy: float | None = None
    """Entropy the temperature holds the policy at; null is minus the numbers in an action, half of that for RLPD."""
    temperature_lr: NonNegativeFloat = 3e-4
    """Learning rate of the temperature; 0 keeps it as it is."""
    lr_policy: PositiveFloat | None = None
    """Learning rate of the policy; null is `lr`."""

    @field_validator("subset")
    @classmethod
    def _at_most_all(cls, subset: int | None, info: ValidationInfo) -> int | None:
        members = info.data.get("members")  # absent where it is itself wrong
        if subset and members and subset > members:
            raise ValueError(f"expected at most members ({members}), got {subset}")
        return subset


class RLPDConfig(SACConfig):
    """Defaults of the paper; `entropy_backup` is false there where rewards are sparse."""

    members: Members = 10
    """Critics."""
    subset: PositiveInt | None = 2
    """Critics drawn anew for each target, of which the smallest counts; null takes all."""
    layer_norm: bool = True
    """LayerNorm in the critics."""
    actor_q: Literal["min", "mean"] = "mean"
    """What of the critics the policy climbs."""


class WSRLConfig(SACConfig):
    """Defaults of the paper; the offline agent's `members` and both kinds of LayerNorm must be the same."""

    members: Members = 10
    """Critics."""
    subset: PositiveInt | None = 2
    """Critics drawn anew for each target, of which the smallest counts; null takes all."""
    replacement: bool = True
    """Whether the same critic may be drawn twice into the subset."""
    layer_norm: bool = True
    """LayerNorm in the critics."""
    policy_layer_norm: bool = True
    """LayerNorm in the policy."""
    entropy_backup: bool = False
    """Whether the target counts the entropy of the next action."""
    lr_policy: PositiveFloat | None = 1e-4
    """Learning rate of the policy; null is `lr`."""


class CQLConfig(SACConfig):
    """Defaults of the paper, without the Lagrange multiplier unless `gap` is set."""

    alpha: NonNegativeFloat = 5.0
    """Weight of the conservative term."""
    samples: PositiveInt = 10
    """Actions of each of three kinds that estimate the sum over all actions."""
    gap: float | None = None
    """Conservative term at which the Lagrange multiplier holds the critics; null is no multiplier."""
    lr_policy: PositiveFloat | None = 1e-4
    """Learning rate of the policy; null is `lr`."""
    entropy_backup: bool = False
    """Whether the target counts the entropy of the next action."""
    max_backup: bool = False
    """Whether the target takes the best of `samples` next actions instead of one."""


class CalQLConfig(CQLConfig):
    """Defaults of the authors' code, except `hidden` (four layers for the critics there), `temperature_lr` (1e-4 there)
    and the Lagrange multiplier, which is there where `gap` is set.
    """

    max_backup: bool = True
    """Whether the target takes the best of `samples` next actions instead of one."""


class DiscreteCQLConfig(AgentConfig):
    """One Q network for all actions; `alpha` 0 is double DQN."""

    alpha: NonNegativeFloat = 1.0
    """Weight of the conservative term."""
    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: Members = 1
    """Critics; the smallest counts."""
    layer_norm: bool = False
    """LayerNorm in the critics."""
    epsilon: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of random actions in the simulator."""


class FQLConfig(AgentConfig):
    """Defaults of the authors, except `hidden` (four layers of 512 there)."""

    alpha: NonNegativeFloat = 10.0
    """Weight of staying with the flow; the authors tune it for each task, from 1 to 10,000."""
    flow_steps: PositiveInt = 10
    """Euler steps from noise to an action."""
    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: Members = 2
    """Critics."""
    target_q: Literal["min", "mean"] = "mean"
    """What of the critics the target takes."""
    layer_norm: bool = True
    """LayerNorm in the critics."""


class QCConfig(FQLConfig):
    """Defaults of the authors, except `hidden` (four layers of 512 there)."""

    chunk: Chunk = 5
    alpha: NonNegativeFloat = 100.0
    """Weight of staying with the flow; the authors tune it for each task."""


class QCSACConfig(RLPDConfig):
    """Defaults of the authors, except `hidden` (four layers of 512 there) and `subset` (all, and their mean, there)."""

    chunk: Chunk = 5
    entropy_backup: bool = False
    """Whether the target counts the entropy of the next action."""
