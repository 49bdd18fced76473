"""Online learning with a recording in the batches."""

from __future__ import annotations

from toolkit.agents.configs import RLPDConfig
from toolkit.agents.sac import SAC


class RLPD(SAC):
    """Reinforcement learning with prior data (Ball et al. 2023, arXiv:2302.02948).

    SAC with ten critics, of which a random two make the target, LayerNorm in them and the actor on their mean. The
    other half of it belongs to the stage: batches half from the recording (`seam.mix`) and many critic updates per
    environment step (`utd`, 20 in the paper), of which the last one moves the policy.

    Order, reads: SAC's. Deviations: SAC's; the warm-up's actions come from the untrained policy, not a uniform one.
    """

    Config = RLPDConfig
    cfg: RLPDConfig
    summary = "from scratch with the recording in half of each batch; strong where the simulator is cheap; set utd"
    offline = False
    entropy_share = 0.5
