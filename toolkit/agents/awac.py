"""Advantage-weighted actor-critic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.awr import advantage_weights, weighted_imitation
from toolkit.agents.base import Agent
from toolkit.agents.configs import AWACConfig
from toolkit.nn import Net, Params, init_mlp, init_policy, optimised, policy, polyak, q_values, td_loss
from toolkit.types import Batch, Metrics


class AWACState(NamedTuple):
    """Networks of one seed."""

    Q: Net
    pi: Net
    Q_targ: Params


class AWAC(Agent[AWACState]):
    """Advantage-weighted actor-critic (Nair et al. 2020, arXiv:2006.09359); beta is 1 / lambda.

    y    = r + discount min_i Q_targ_i(s', a'),  a' ~ pi(s')
    L_Q  = E (Q(s, a) - y)^2
    A    = min_i Q_i(s, a) - min_i Q_i(s, a_pi),  a_pi ~ pi(s)
    L_pi = -E min(exp(beta A), weight_max) log pi(a | s)

    Order: Q on Q_targ and the old pi; pi on the new Q and the old pi; Q_targ. Reads: Q <- Q_targ, pi; pi <- Q, pi.
    Deviations: weights bounded and not divided by their sum over the batch, as in CORL; state-dependent standard
    deviation, so that the policy can be handed on to SAC.
    """

    Config = AWACConfig
    cfg: AWACConfig
    summary = "critics by TD, policy by weighted imitation; asks critics about unseen actions"

    @property
    def noise_dim(self) -> int:
        """An action at the next observation and one at this."""
        return 2 * self.spec.action_dim

    def init(self, generator: torch.Generator) -> AWACState:
        """Fresh networks."""
        c, o, a = self.cfg, self.input_dim, self.spec.action_dim
        Q = init_mlp([o + a, *c.hidden, 1], generator, members=c.members, layer_norm=c.layer_norm)
        return AWACState(optimised(Q), optimised(init_policy(o, a, c.hidden, generator)), Q)

    def update(self, st: AWACState, b: Batch) -> tuple[AWACState, Metrics]:
        """Critics, policy, target."""
        st, m_Q = self.update_critic(st, b)
        weight = advantage_weights(self.advantage(st, b), self.cfg.beta, self.cfg.weight_max)
        lr = self.cfg.lr * b.lr_scale
        pi, m_pi = st.pi.descend(lambda p: weighted_imitation(p, b.policy_obs, b.action, weight), lr)
        return st._replace(pi=pi), m_Q | m_pi

    def update_critic(self, st: AWACState, b: Batch) -> tuple[AWACState, Metrics]:
        """Critics and target."""
        a = policy(st.pi.p, b.next_obs).draw_around(b.noise[..., : self.spec.action_dim])
        y = b.reward + b.discount * q_values(st.Q_targ, b.next_obs, a).amin(0)
        Q, metrics = st.Q.descend(lambda p: td_loss(p, y, b), self.cfg.lr * b.lr_scale)
        return st._replace(Q=Q, Q_targ=polyak(st.Q_targ, Q.p, self.cfg.polyak)), metrics

    def advantage(self, st: AWACState, b: Batch) -> Tensor:
        """How much better the critics think of the recorded action than of the policy's, (B,)."""
        a = policy(st.pi.p, b.policy_obs).draw_around(b.noise[..., self.spec.action_dim :])
        q, q_pi = (q_values(st.Q.p, b.policy_obs, x).amin(0) for x in (b.action, a))
        return q - q_pi

    def act(self, st: AWACState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample; greedy with zero noise."""
        return policy(st.pi.p, obs).draw_around(noise)

    def q(self, st: AWACState, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest critic."""
        return q_values(st.Q.p, obs, action).amin(0)
