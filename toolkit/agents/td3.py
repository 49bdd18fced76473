"""Twin delayed deterministic policy gradient, and what TD3+BC and ReBRAC share with it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import TD3Config
from toolkit.nn import Net, Params, init_mlp, init_policy, optimised, policy, polyak, q_values, td_loss
from toolkit.types import Batch, Metrics


class TD3State(NamedTuple):
    """Networks of one seed."""

    Q: Net
    pi: Net
    Q_targ: Params
    pi_targ: Params


class TD3(Agent[TD3State]):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477); pi(s) is tanh(mean).

    a'   = clip(pi_targ(s') + clip(target_noise z, target_noise_max), 1)
    y    = r + discount min_i Q_targ_i(s', a')
    L_Q  = sum_i E (Q_i(s, a) - y)^2
    L_pi = -E Q_1(s, pi(s))

    Order: Q on Q_targ and pi_targ; Q_targ; in every `policy_every`-th update also pi on the new Q; pi_targ. In a
    stage whose `utd` is larger, pi moves once an environment step.
    Reads: Q <- Q_targ, pi_targ; pi <- Q.
    Deviations: Q_targ moves with every update of Q, by a `policy_every`-th of `polyak`: as fast as the authors' and
    also where the policy stands still. The policy has the two heads of all other agents, so that it carries over
    both ways; the deviation's head gets no gradient, and SAC begins with it near 1.
    """

    Config = TD3Config
    cfg: TD3Config
    summary = "deterministic policy; overestimates on static data"
    offline = False

    @property
    def noise_dim(self) -> int:
        """Noise on the target's action."""
        return self.spec.action_dim

    @property
    def policy_every(self) -> int:
        return self.cfg.policy_every

    def init(self, generator: torch.Generator) -> TD3State:
        """Fresh networks."""
        c, o, a = self.cfg, self.input_dim, self.spec.action_dim
        Q = init_mlp([o + a, *c.hidden, 1], generator, members=c.members, layer_norm=c.layer_norm)
        pi = init_policy(o, a, c.hidden, generator)
        return TD3State(optimised(Q), optimised(pi), Q, pi)

    def update(self, st: TD3State, b: Batch) -> tuple[TD3State, Metrics]:
        """Critics, policy, targets."""
        st, m_Q = self.update_critic(st, b)
        pi, m_pi = st.pi.descend(lambda p: self.loss_pi(p, st, b), self.cfg.lr * b.lr_scale)
        return st._replace(pi=pi, pi_targ=polyak(st.pi_targ, pi.p, self.cfg.polyak)), m_Q | m_pi

    def update_critic(self, st: TD3State, b: Batch) -> tuple[TD3State, Metrics]:
        """Critics and their target."""
        c = self.cfg
        z = (c.target_noise * b.noise).clamp(-c.target_noise_max, c.target_noise_max)
        a = (policy(st.pi_targ, b.next_obs).mode + z).clamp(-1.0, 1.0)
        y = b.reward + b.discount * self.next_value(a, st, b)
        Q, metrics = st.Q.descend(lambda p: td_loss(p, y, b), c.lr * b.lr_scale)
        return st._replace(Q=Q, Q_targ=polyak(st.Q_targ, Q.p, c.polyak / c.policy_every)), metrics

    def next_value(self, a: Tensor, st: TD3State, b: Batch) -> Tensor:
        """The smallest target critic at the next observation and action `a`, (B, A) -> (B,)."""
        return q_values(st.Q_targ, b.next_obs, a).amin(0)

    def loss_pi(self, p: Params, st: TD3State, b: Batch) -> tuple[Tensor, Metrics]:
        """Climb the first critic."""
        q = first_critic(st.Q.p, b.policy_obs, policy(p, b.policy_obs).mode)
        loss = -q.mean()
        return loss, {"loss/pi": loss.detach(), "q_pi": q.mean().detach()}

    def act(self, st: TD3State, obs: Tensor, noise: Tensor) -> Tensor:
        """tanh(mean) and exploration noise; greedy with zero noise."""
        return (policy(st.pi.p, obs).mode + self.cfg.explore_std * noise).clamp(-1.0, 1.0)

    def q(self, st: TD3State, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest critic."""
        return q_values(st.Q.p, obs, action).amin(0)


def first_critic(p: Params, s: Tensor, a: Tensor) -> Tensor:
    """The first member of an ensemble alone, (B, O), (B, A) -> (B,)."""
    return q_values({k: w[0] for k, w in p.items()}, s, a)


def magnitude(q: Tensor) -> Tensor:
    """Mean of |q| without gradient, (): critics divided by it weigh the same at any scale of reward."""
    return q.abs().mean().detach()
