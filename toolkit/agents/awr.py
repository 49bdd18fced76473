"""Advantage-weighted regression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import AWRConfig
from toolkit.nn import Net, Params, init_mlp, init_policy, mlp, optimised, policy
from toolkit.types import NO_RETURN, Batch, Metrics


class AWRState(NamedTuple):
    """Networks of one seed."""

    V: Net
    pi: Net


class AWR(Agent[AWRState]):
    """Advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177) on recorded returns G.

    L_V  = E (G - V(s))^2
    L_pi = -E min(exp(beta (G - V(s))), weight_max) log pi(a | s)

    Order: V; pi on the new V. Reads: pi <- V. No target, no value of an action. A transition of an episode that is
    not over has no return yet and weighs nothing in either loss.
    Deviations: one step of each at a time; the plain return of the paper's equations where the authors' code has
    TD(lambda); the advantage is not standardised. After a time limit the worst is counted that can follow, or nothing
    where the simulator's own rewards leave that unknown. The policy reads `obs` whatever goal was drawn for it: a
    return belongs to the goal it was recorded with, and none other has one.
    """

    Config = AWRConfig
    cfg: AWRConfig
    summary = "imitates what turned out better than usual; simple, noisy, cannot stitch"
    needs = frozenset({"mc_return"})

    def init(self, generator: torch.Generator) -> AWRState:
        """Fresh networks."""
        c, o = self.cfg, self.input_dim
        V = init_mlp([o, *c.hidden, 1], generator)
        return AWRState(optimised(V), optimised(init_policy(o, self.spec.action_dim, c.hidden, generator)))

    def update(self, st: AWRState, b: Batch) -> tuple[AWRState, Metrics]:
        """V, then the policy."""
        st, m_V = self.update_critic(st, b)
        u = b.mc_return - mlp(st.V.p, b.obs).squeeze(-1)
        weight = advantage_weights(u, self.cfg.beta, self.cfg.weight_max) * _known(b)
        pi, m_pi = st.pi.descend(lambda p: weighted_imitation(p, b.obs, b.action, weight), self.cfg.lr * b.lr_scale)
        return st._replace(pi=pi), m_V | m_pi

    def update_critic(self, st: AWRState, b: Batch) -> tuple[AWRState, Metrics]:
        """V alone."""
        V, metrics = st.V.descend(lambda p: self.loss_V(p, b), self.cfg.lr * b.lr_scale)
        return st._replace(V=V), metrics

    def loss_V(self, p: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Regression of V on the returns there are."""
        v = mlp(p, b.obs).squeeze(-1)
        loss = (_known(b) * (b.mc_return - v) ** 2).mean()
        return loss, {"loss/V": loss.detach(), "v": v.mean().detach()}

    def act(self, st: AWRState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample; greedy with zero noise."""
        return policy(st.pi.p, obs).draw_around(noise)


def _known(b: Batch) -> Tensor:
    """1 where the episode is over and its return known, else 0, (B,)."""
    return (b.mc_return > NO_RETURN).float()


def advantage_weights(u: Tensor, beta: float, weight_max: float) -> Tensor:
    """min(exp(beta u), weight_max) for advantages `u`, any shape."""
    return torch.exp(beta * u).clamp(max=weight_max)


def weighted_imitation(p: Params, obs: Tensor, action: Tensor, weight: Tensor) -> tuple[Tensor, Metrics]:
    """Negative log likelihood of `action` (B, A), each row times its `weight` (B,)."""
    log_prob = policy(p, obs).log_prob(action)
    loss = -(weight * log_prob).mean()
    return loss, {"loss/pi": loss.detach(), "log_prob": log_prob.mean().detach(), "weight": weight.mean()}
