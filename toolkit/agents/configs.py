"""Hyper-parameters of every algorithm. Knows no torch, so that a wrong one is refused before torch is loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

Polyak = Annotated[float, Field(gt=0, le=1)]
Rung = Annotated[
    Literal["returns", "returns-baseline", "mc", "td", "q", "gae"],
    Field(description="What makes an action better than others: its return, that against the mean, or a critic."),
]


class AgentConfig(BaseModel):
    """Hyper-parameters common to all agents; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    on_policy: ClassVar[bool] = False
    """Whether it learns from what its present policy has just done, and from nothing else."""

    hidden: tuple[PositiveInt, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    lr: PositiveFloat = 3e-4
    """Learning rate of every network that has none of its own."""


class BCConfig(AgentConfig):
    """What the policy is."""

    policy: Literal["gaussian", "deterministic"] = "gaussian"
    """Whether it is fitted as a distribution, by likelihood, or as a function, by squared error."""


class FilteredBCConfig(BCConfig):
    """Which episodes are imitated."""

    by: Literal["success", "return"] = "success"
    """What makes an episode good: that it ends in success, or a return among the highest."""
    top: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the episodes kept, by return."""


class AWRConfig(AgentConfig):
    """Temperature and bound of the authors' code, which standardises the advantage first."""

    beta: NonNegativeFloat = 1.0
    """Inverse temperature of the advantage; 0 imitates."""
    weight_max: PositiveFloat = 20.0
    """Bound of an action's weight."""


class AWACConfig(AWRConfig):
    """Defaults of CORL; in its fine-tuning on AntMaze and Adroit `beta` is 10."""

    weight_max: PositiveFloat = 100.0
    """Bound of an action's weight."""
    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: PositiveInt = 2
    """Critics; the smallest counts."""
    layer_norm: bool = False
    """LayerNorm in the critics."""


class IVLConfig(AWRConfig):
    """Defaults of OGBench's GCIVL."""

    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Asymmetry of V: 0.5 is the mean over the data, towards 1 the best of it."""
    beta: NonNegativeFloat = 10.0
    """Inverse temperature of the advantage; 0 imitates."""
    weight_max: PositiveFloat = 100.0
    """Bound of an action's weight."""
    polyak: Polyak = 0.005
    """Share of V mixed into its target at each update."""
    members: PositiveInt = 2
    """Networks for V."""
    layer_norm: bool = True
    """LayerNorm in V."""


class ExpectileConfig(AgentConfig):
    """Critics learned by expectile regression and a policy that weighs actions by their advantage."""

    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Asymmetry of V: 0.5 is the mean over the data's actions, towards 1 the best of them."""
    beta: NonNegativeFloat = 3.0
    """Inverse temperature of the advantage; 0 imitates."""
    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: PositiveInt = 2
    """Critics; the smallest counts."""
    layer_norm: bool = False
    """LayerNorm in the critics and V."""
    weight_max: PositiveFloat = 100.0
    """Bound of an action's weight."""


class IQLConfig(ExpectileConfig):
    """Defaults of the paper for AntMaze, except `beta` (10 there)."""

    extraction: Literal["awr", "ddpgbc"] = "awr"
    """How the policy follows from the critics: weighted imitation, or their gradient beside imitation."""
    alpha: NonNegativeFloat = 0.1
    """Weight of imitation ("ddpgbc")."""


class TD3Config(AgentConfig):
    """Defaults of the authors' code."""

    policy_every: PositiveInt = 2
    """Critic updates to one update of the policy."""
    polyak: Polyak = 0.005
    """Share of policy and critics mixed into their targets with each update of the policy."""
    target_noise: NonNegativeFloat = 0.2
    """Standard deviation of the noise on the target's action."""
    target_noise_max: NonNegativeFloat = 0.5
    """Bound of that noise."""
    explore_std: NonNegativeFloat = 0.1
    """Standard deviation of the noise on actions in the simulator."""
    members: PositiveInt = 2
    """Critics; the smallest counts in the target."""
    layer_norm: bool = False
    """LayerNorm in the critics."""


class TD3BCConfig(TD3Config):
    """Defaults of the paper."""

    alpha: NonNegativeFloat = 2.5
    """Weight of the critics, scaled to a mean size of 1, beside imitation; 0 imitates."""


class ReBRACConfig(TD3Config):
    """Networks of the paper and its penalties for AntMaze, with rewards 100 times larger there; tune these first."""

    hidden: tuple[PositiveInt, ...] = (256, 256, 256)
    """Widths of the hidden layers of every network."""
    lr: PositiveFloat = 1e-3
    """Learning rate of every network."""
    layer_norm: bool = True
    """LayerNorm in the critics."""
    alpha_policy: NonNegativeFloat = 0.003
    """Weight of the policy's squared distance to the data, beside critics scaled to a mean size of 1."""
    alpha_critic: NonNegativeFloat = 0.002
    """Weight of the next action's squared distance to the data in the target, in units of reward; 0 suits practice."""


class PEXConfig(ExpectileConfig):
    """Defaults of the authors' code for AntMaze."""

    beta: NonNegativeFloat = 10.0
    """Inverse temperature of the advantage; 0 imitates."""
    temperature: PositiveFloat = 0.1
    """Difference in Q at which the better of the two proposals is e times as likely as the other."""


class SACConfig(AgentConfig):
    """Defaults of the paper."""

    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: PositiveInt = 2
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

    members: PositiveInt = 10
    """Critics."""
    subset: PositiveInt | None = 2
    """Critics drawn anew for each target, of which the smallest counts; null takes all."""
    layer_norm: bool = True
    """LayerNorm in the critics."""
    actor_q: Literal["min", "mean"] = "mean"
    """What of the critics the policy climbs."""


class WSRLConfig(SACConfig):
    """Defaults of the paper; the offline agent's `members` and both kinds of LayerNorm must be the same."""

    members: PositiveInt = 10
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
    """Defaults of the authors' code, without the Lagrange multiplier unless `gap` is set."""

    max_backup: bool = True
    """Whether the target takes the best of `samples` next actions instead of one."""


class DiscreteCQLConfig(AgentConfig):
    """One Q network for all actions; `alpha` 0 is double DQN."""

    alpha: NonNegativeFloat = 1.0
    """Weight of the conservative term."""
    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: PositiveInt = 1
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
    members: PositiveInt = 2
    """Critics."""
    target_q: Literal["min", "mean"] = "mean"
    """What of the critics the target takes."""
    layer_norm: bool = True
    """LayerNorm in the critics."""


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


class HIQLConfig(AgentConfig):
    """Defaults of OGBench, except `hidden` (three layers of 512 there); it draws value goals 0.2 here, 0.5, 0.3."""

    waypoint_steps: PositiveInt = 25
    """Steps from a state to the waypoint that the upper level proposes."""
    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Asymmetry of V: 0.5 is the mean over what the data did, towards 1 the best of it."""
    beta: NonNegativeFloat = 3.0
    """Inverse temperature of the advantage, on both levels."""
    polyak: Polyak = 0.005
    """Share of V mixed into its target at each update."""
    layer_norm: bool = True
    """LayerNorm in V."""
    weight_max: PositiveFloat = 100.0
    """Bound of a sample's weight."""


class QRLConfig(AgentConfig):
    """Defaults of OGBench, except the widths (three layers of 512, embeddings of 512) and `lr_lambda` (3e-4 there).

    OGBench draws all value goals at random, all policy goals from the episode's future.
    """

    latent_dim: Annotated[int, Field(gt=0, multiple_of=8)] = 128
    """Numbers in an embedding, eight to a component."""
    far: PositiveFloat = 500.0
    """Steps beyond which a state and a goal are not pushed further apart; above the longest way there is."""
    slack: PositiveFloat = 0.05
    """Mean squared excess over the length of a step that is let pass (epsilon squared in the paper)."""
    lr_lambda: PositiveFloat = 1e-2
    """Learning rate of the multiplier's logarithm; it has to outgrow what pushes apart before distances mean much."""
    alpha: NonNegativeFloat = 0.003
    """Weight of imitation in the policy."""
    layer_norm: bool = True
    """LayerNorm in the embeddings and the model."""
