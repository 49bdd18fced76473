"""Q-chunking: agents whose action is several in a row."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.agents.configs import QCConfig, QCSACConfig
from toolkit.agents.fql import FQL
from toolkit.agents.sac import SAC
from toolkit.types import Batch


class QC(FQL):
    """Flow Q-learning on chunks of h actions (Li et al. 2025, arXiv:2507.07969, "QC-FQL").

    FQL with a = (a_0, ..., a_(h-1)) from the data, played one after the other before the policy looks again:

    y = sum_(j < h) gamma^j r_j + gamma^h (1 - terminated) mean_i Q_targ_i(s_h, mu(s_h, z))

    The critics know all h actions that the rewards came from, so that the sum is right whoever acted; in an n-step
    return only the first is the critic's, the others are the recording's. A flow keeps the chunks coherent.

    The flow learns those actions of a chunk that were taken before the task ended.

    Order, reads: FQL's. Deviations: FQL's; the critics learn from a chunk in which the task ends too, with recorded
    actions from elsewhere for those that were not taken (weight 0 in the authors' code, which makes the rest worth too
    much); one in which a recording stops is not drawn, where the authors' flow learns its first actions.
    """

    Config = QCConfig
    cfg: QCConfig
    summary = "FQL that decides on several actions at once: for long ways, sparse rewards and coherent demonstrations"

    def imitated(self, b: Batch) -> Tensor | float:
        """1 where an action was taken, 0 behind the end of the task."""
        if b.taken is None:
            return 1.0
        place = torch.arange(self.spec.action_dim, device=b.action.device) // (self.spec.action_dim // self.chunk)
        return (place < b.taken[:, None]).to(b.action.dtype)


class QCSAC(SAC):
    """SAC on chunks of h actions (Li et al. 2025, arXiv:2507.07969, "RLPD-AC").

    RLPD's SAC: ten critics, LayerNorm, the actor on their mean, no entropy in the target, which is `QC`'s but for its
    policy. The recording in half of each batch belongs to the stage, as for `rlpd`.

    Order, reads: SAC's. Deviations: SAC's and `QC`'s; the smallest of a random two critics makes the target, as in
    RLPD, where the authors take the mean of all.
    """

    Config = QCSACConfig
    cfg: QCSACConfig
    summary = "RLPD that decides on several actions at once: explores in long strokes, with a recording beside it"
    entropy_share = 0.5
