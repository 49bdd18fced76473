"""Agents for tasks whose policy sees its goal."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from toolkit.agents.configs.base import AgentConfig, Polyak


class HIQLConfig(AgentConfig):
    """Defaults of OGBench, except `hidden` (three layers of 512 there); it draws value goals 0.2 here, 0.5, 0.3."""

    places: bool = False
    """Whether V and the upper level see of a state its place in the maze alone, and only the lower level all of it:
    for robots that have to balance."""
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
