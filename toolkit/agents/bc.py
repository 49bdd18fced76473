"""Behaviour cloning, plain and filtered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import AgentConfig, FilteredBCConfig
from toolkit.nn import Net, Params, init_policy, optimised, policy
from toolkit.types import Batch, BoolArray, FloatArray, Metrics


class BCState(NamedTuple):
    """The policy of one seed."""

    pi: Net


class BC(Agent[BCState]):
    """Behaviour cloning by maximum likelihood (Pomerleau 1988).

    L_pi = -E log pi(a | s)

    Reads: pi. Deviations: none; the density is a normal around tanh(mean), see `nn.Gaussian`.
    """

    Config = AgentConfig
    cfg: AgentConfig
    summary = "offline; imitates the data, good or bad; the floor to compare with"

    def init(self, generator: torch.Generator) -> BCState:
        """Fresh policy."""
        return BCState(optimised(init_policy(self.spec.obs_dim, self.spec.action_dim, self.cfg.hidden, generator)))

    def update(self, st: BCState, b: Batch) -> tuple[BCState, Metrics]:
        """One step up the likelihood."""
        pi, metrics = st.pi.descend(lambda p: self.loss_pi(p, b), self.cfg.lr * b.lr_scale)
        return BCState(pi), metrics

    def loss_pi(self, p: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Negative log likelihood of the recorded actions."""
        loss = -policy(p, b.obs).log_prob(b.action).mean()
        return loss, {"loss/pi": loss.detach()}

    def act(self, st: BCState, obs: Tensor, noise: Tensor) -> Tensor:
        """Squashed normal sample; greedy with zero noise."""
        return policy(st.pi.p, obs).sample(noise)[0]


class FilteredBC(BC):
    """Behaviour cloning on the good episodes only ("10 % BC", Chen et al. 2021, arXiv:2106.01345, section 5.1).

    Keeps the episodes that end in success, or (by: return) the `top` share of highest returns.
    """

    Config = FilteredBCConfig
    cfg: FilteredBCConfig
    summary = "offline; imitates the successful or best episodes; a good first try; cannot stitch"

    def keep(self, returns: FloatArray, success: BoolArray) -> BoolArray:
        """Mask of the episodes to train on; all three arrays are (E,)."""
        if self.cfg.by == "success":
            return success
        return returns >= np.quantile(returns, 1.0 - self.cfg.top)
