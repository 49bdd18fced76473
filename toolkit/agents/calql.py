"""Calibrated Q-learning."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.agents.configs import CalQLConfig
from toolkit.agents.cql import CQL
from toolkit.types import Batch, Metrics


class CalQL(CQL):
    """Calibrated Q-learning (Nakamoto et al. 2023, arXiv:2303.05479).

    L_Q = L_Q of CQL in which Q(s, a) becomes max(Q(s, a), G) for sampled actions a of the policy      eq. 5.1
    G is the Monte Carlo return of the recording at s: the conservative term stops pushing a value down once the
    behaviour is known to earn more, so that the values have the right scale when training goes online.

    The bound holds for the policy's actions of s and of s', both judged at s, never for the uniform ones, offline and
    online alike. A row whose episode has not ended is not bounded.

    Order, reads: CQL's. Deviations: CQL's. Where a task leaves rewards to its simulator nothing is known of what
    follows a time limit, and G counts nothing there, as in the authors' code: with rewards below 0 that is no lower
    bound.
    """

    Config = CalQLConfig
    cfg: CalQLConfig
    summary = "CQL that does not sink below the recorded returns: the one of the two to fine-tune online"
    needs = frozenset({"mc_return"})

    def bounded(self, q: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
        """Q at the sampled actions, (E, B, 3K), the policy's not below the recorded return."""
        K, bound = self.cfg.samples, b.mc_return[:, None]
        ours = q[..., K:]
        rate = (ours < bound).float().mean().detach()
        return torch.cat([q[..., :K], torch.maximum(ours, bound)], -1), {"bound_rate": rate}
