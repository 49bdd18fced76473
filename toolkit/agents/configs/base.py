"""Hyper-parameters common to all agents."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

# bounds far beyond use: a file of somebody else's cannot ask for all memory there is
Hidden = Annotated[tuple[Annotated[PositiveInt, Field(le=8192)], ...], Field(max_length=32)]
Members = Annotated[PositiveInt, Field(le=1000)]
Polyak = Annotated[float, Field(gt=0, le=1)]


class AgentConfig(BaseModel):
    """Hyper-parameters common to all agents; unknown names are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )
    on_policy: ClassVar[bool] = False
    """Whether it learns from what its present policy has just done, and from nothing else."""

    hidden: Hidden = (256, 256)
    """Widths of the hidden layers of every network."""
    fourier: tuple[PositiveFloat, ...] = ()
    """Frequencies f of Fourier features (arXiv:2006.10739): in a maze every network sees, beside the observation,
    sin(f x) and cos(f x) of the position and of an observed goal, normalised. Lets values and actions differ on the two
    sides of a thin wall."""
    lr: PositiveFloat = 3e-4
    """Learning rate of every network that has none of its own."""
