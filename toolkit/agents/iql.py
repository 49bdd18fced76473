"""Implicit Q-learning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.awr import advantage_weights
from toolkit.agents.base import Agent
from toolkit.agents.configs import IQLConfig
from toolkit.agents.td3 import magnitude
from toolkit.nn import Net, Params, init_mlp, init_policy, mlp, optimised, policy, polyak, q_values, td_loss
from toolkit.types import Batch, Metrics


class IQLState(NamedTuple):
    """Networks of one seed."""

    V: Net
    Q: Net
    pi: Net
    Q_targ: Params


class IQL(Agent[IQLState]):
    """Implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169).

    L_V  = E |expectile - 1(u < 0)| u^2,   u = min Q_targ(s, a) - V(s)          eq. 5
    L_Q  = E (r + discount V(s') - Q(s, a))^2                                    eq. 6
    L_pi = -E min(exp(beta u), weight_max) log pi(a | s)                         eq. 7 ("awr")
    L_pi = -E Q(s, pi(s)) / |Q| - alpha log pi(a | s)                            ("ddpgbc", arXiv:2406.09329)

    Order: V on Q_targ; Q on the new V; pi on the old Q_targ (ddpgbc: the old Q) and the new V; Q_targ.
    Reads: V <- Q_targ; pi <- Q_targ, V; Q <- V at s'. No loss asks for an action outside the data.
    With goals drawn anew it is GCIQL (arXiv:2410.20092): L_V and L_Q for the value's goal, L_pi for the policy's.
    Deviations: rewards may be n-step sums; LayerNorm and more than two critics are options;
    state-dependent standard deviation, so that the policy can be handed on to SAC.
    """

    Config = IQLConfig
    cfg: IQLConfig
    summary = "stitches, and learns only from actions in the data; the first to try"

    def init(self, generator: torch.Generator) -> IQLState:
        """Fresh networks."""
        c, o, a = self.cfg, self.input_dim, self.spec.action_dim
        Q = init_mlp([o + a, *c.hidden, 1], generator, members=c.members, layer_norm=c.layer_norm)
        V = init_mlp([o, *c.hidden, 1], generator, layer_norm=c.layer_norm)
        return IQLState(optimised(V), optimised(Q), optimised(init_policy(o, a, c.hidden, generator)), Q)

    def update(self, st: IQLState, b: Batch) -> tuple[IQLState, Metrics]:
        """V and Q, then the policy on the critics as they were and the new V."""
        new, q, metrics = self._critics(st, b)
        if self.spec.goal_dim:
            q = q_values(st.Q_targ, b.policy_obs, b.action).amin(0)
        pi, m_pi = st.pi.descend(lambda p: self.loss_pi(p, new.V.p, q, st, b), self.cfg.lr * b.lr_scale)
        return new._replace(pi=pi), metrics | m_pi

    def update_critic(self, st: IQLState, b: Batch) -> tuple[IQLState, Metrics]:
        """V, Q, target."""
        new, _, metrics = self._critics(st, b)
        return new, metrics

    def _critics(self, st: IQLState, b: Batch) -> tuple[IQLState, Tensor, Metrics]:
        """V, then Q, then the target; also what the old target made of the recorded actions, (B,)."""
        lr = self.cfg.lr * b.lr_scale
        q = q_values(st.Q_targ, b.obs, b.action).amin(0)
        V, m_V = st.V.descend(lambda p: self.loss_V(p, q, b), lr)
        y = b.reward + b.discount * mlp(V.p, b.next_obs).squeeze(-1)
        Q, m_Q = st.Q.descend(lambda p: td_loss(p, y, b), lr)
        return st._replace(V=V, Q=Q, Q_targ=polyak(st.Q_targ, Q.p, self.cfg.polyak)), q, m_V | m_Q

    def loss_V(self, p: Params, q: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
        """Expectile regression of V on the target critics."""
        v = mlp(p, b.obs).squeeze(-1)
        loss = expectile_loss(q - v, self.cfg.expectile).mean()
        return loss, {"loss/V": loss.detach(), "v": v.mean().detach()}

    def loss_pi(self, p: Params, V: Params, q: Tensor, st: IQLState, b: Batch) -> tuple[Tensor, Metrics]:
        """Advantage-weighted regression, or the policy gradient with a behaviour-cloning term."""
        dist = policy(p, b.policy_obs)
        log_prob = dist.log_prob(b.action)
        if self.cfg.extraction == "awr":
            u = q - mlp(V, b.policy_obs).squeeze(-1)
            loss = -(advantage_weights(u, self.cfg.beta, self.cfg.weight_max) * log_prob).mean()
        else:
            q_pi = q_values(st.Q.p, b.policy_obs, dist.mode).amin(0)
            loss = -(q_pi.mean() / magnitude(q_pi)) - self.cfg.alpha * log_prob.mean()
        return loss, {"loss/pi": loss.detach(), "log_prob": log_prob.mean().detach()}

    def act(self, st: IQLState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample; greedy with zero noise."""
        return policy(st.pi.p, obs).draw_around(noise)

    def q(self, st: IQLState, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest critic."""
        return q_values(st.Q.p, obs, action).amin(0)


def expectile_weight(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)|."""
    return torch.where(u < 0, 1.0 - expectile, expectile)


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2: 0.5 gives half the squared error, towards 1 the maximum of the data."""
    return expectile_weight(u, expectile) * u * u
