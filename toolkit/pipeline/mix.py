"""How a batch divides between the data set and the new experience, as a pipeline file may say it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

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
