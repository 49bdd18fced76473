"""Behaviour cloning, plain and filtered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import BCConfig, FilteredBCConfig
from toolkit.nn import Net, Params, init_policy, optimised, policy
from toolkit.types import Batch, BoolArray, FloatArray, Metrics


class BCState(NamedTuple):
    """The policy of one seed."""

    pi: Net


class BC(Agent[BCState]):
    """Behaviour cloning (Pomerleau 1988).

    L_pi = -E log pi(a | s)                                                      ("gaussian")
    L_pi =  E |tanh(mean(s)) - a|^2                                              ("deterministic")

    With goals drawn for the policy it is GCBC (Ghosh et al. 2019, arXiv:1912.06088).
    Reads: pi. Deviations: none; the density is a normal around tanh(mean), see `nn.Gaussian`. A deterministic policy
    has the same network, of which one head stays as it was: it carries on to every other agent.
    """

    Config = BCConfig
    cfg: BCConfig
    summary = "imitates the data, good or bad; the floor to compare with"
    online = False

    def init(self, generator: torch.Generator) -> BCState:
        """Fresh policy."""
        return BCState(optimised(init_policy(self.input_dim, self.spec.action_dim, self.cfg.hidden, generator)))

    def update(self, st: BCState, b: Batch) -> tuple[BCState, Metrics]:
        """One step down the loss."""
        pi, metrics = st.pi.descend(lambda p: self.loss_pi(p, b), self.cfg.lr * b.lr_scale)
        return BCState(pi), metrics

    def loss_pi(self, p: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Negative log likelihood of the recorded actions, or squared distance to them."""
        dist = policy(p, b.policy_obs)
        if self.cfg.policy == "deterministic":
            loss = ((dist.mode - b.action) ** 2).sum(-1).mean()
        else:
            loss = -dist.log_prob(b.action).mean()
        return loss, {"loss/pi": loss.detach()}

    def act(self, st: BCState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample, greedy with zero noise; a deterministic policy is always greedy."""
        dist = policy(st.pi.p, obs)
        return dist.mode if self.cfg.policy == "deterministic" else dist.draw_around(noise)


class FilteredBC(BC):
    """Behaviour cloning on the good episodes only ("10 % BC", Chen et al. 2021, arXiv:2106.01345, section 5.1).

    Keeps the episodes that end in success, or (by: return) the `top` share of highest returns.
    """

    Config = FilteredBCConfig
    cfg: FilteredBCConfig
    summary = "imitates the successful or best episodes; a good first try; seldom stitches"

    def keep(self, returns: FloatArray, success: BoolArray) -> BoolArray:
        """Mask of the episodes to train on; all three arrays are (E,)."""
        if self.cfg.by == "success":
            return success
        mask = np.zeros(len(returns), np.bool_)  # of equals the earlier ones: a bound would keep all failures of a kind
        mask[np.argsort(-returns, kind="stable")[: max(1, round(self.cfg.top * len(returns)))]] = True
        return mask
