"""Imitation, all actions alike or weighted by their advantage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from toolkit.agents.configs.base import AgentConfig, Members, Polyak


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
    """Defaults of CORL, except `hidden` (three layers there); in its fine-tuning on AntMaze and Adroit `beta` is 10."""

    weight_max: PositiveFloat = 100.0
    """Bound of an action's weight."""
    polyak: Polyak = 0.005
    """Share of the critics mixed into their target at each update."""
    members: Members = 2
    """Critics; the smallest counts."""
    layer_norm: bool = False
    """LayerNorm in the critics."""


class IVLConfig(AWRConfig):
    """Defaults of OGBench's GCIVL, except `hidden` (three layers of 512 there)."""

    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Asymmetry of V: 0.5 is the mean over the data, towards 1 the best of it."""
    beta: NonNegativeFloat = 10.0
    """Inverse temperature of the advantage; 0 imitates."""
    weight_max: PositiveFloat = 100.0
    """Bound of an action's weight."""
    polyak: Polyak = 0.005
    """Share of V mixed into its target at each update."""
    members: Members = 2
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
    members: Members = 2
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
    """Weight of imitation ("ddpgbc"), whose pull is alpha / std^2: OGBench's numbers are for a std fixed at 1."""


class PEXConfig(ExpectileConfig):
    """Defaults of the authors' code for AntMaze."""

    beta: NonNegativeFloat = 10.0
    """Inverse temperature of the advantage; 0 imitates."""
    temperature: PositiveFloat = 0.1
    """Difference in Q at which the better of the two proposals is e times as likely as the other."""
