"""Online learning that starts warm and keeps no recording."""

from __future__ import annotations

from toolkit.agents.configs import WSRLConfig
from toolkit.agents.sac import SAC


class WSRL(SAC):
    """Warm-start reinforcement learning (Zhou et al. 2024, arXiv:2412.07762).

    SAC that takes over all networks of an offline stage (Cal-QL in the paper). The rest belongs to the stage: the
    temperature is kept (`seam.temperature: keep`), the recording dropped (`seam.data: drop`), the frozen policy fills
    the buffer first (`warmup_steps`, 5,000 in the paper), then four critic updates per environment step (`utd`).

    Order, reads: SAC's. Deviations: SAC's; policy and critics have the same widths.
    """

    Config = WSRLConfig
    cfg: WSRLConfig
    summary = "goes on from an offline stage without its data: for recordings that are large or cannot be kept"
    offline = False
