"""Flow Q-learning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import FQLConfig
from toolkit.nn import Net, Params, init_mlp, mlp, optimised, polyak, q_values, td_loss
from toolkit.types import Batch, Metrics


class FQLState(NamedTuple):
    """Networks of one seed: `flow` is the velocity v(s, a, t), `mu` the policy that needs one step."""

    Q: Net
    flow: Net
    mu: Net
    Q_targ: Params


class FQL(Agent[FQLState]):
    """Flow Q-learning (Park et al. 2025, arXiv:2502.02538).

    y      = r + discount Q_targ(s', mu(s', z)),  mean or minimum of the critics,  z ~ N(0, 1)
    L_Q    = E (Q(s, a) - y)^2
    L_flow = E |v(s, (1 - t) z + t a, t) - (a - z)|^2,  t uniform in [0, 1]
    L_mu   = E alpha |mu(s, z) - a_flow(s, z)|^2 - mean_i Q_i(s, mu(s, z))
    a_flow(s, z) follows v from z at t = 0 to t = 1 in `flow_steps` Euler steps; squared errors are means over the
    numbers of an action. All actions are cut to [-1, 1] before a critic sees them.

    Order: Q on Q_targ and the old mu; flow; mu on the new flow and Q; Q_targ.
    Reads: Q <- Q_targ, mu; flow <- data alone; mu <- flow, Q.
    Deviations: the greedy action is mu(s, 0), where the authors sample; ReLU and orthogonal weights, not GELU.
    """

    Config = FQLConfig
    policies = ("mu",)
    cfg: FQLConfig
    summary = "imitates several ways of acting at once, then climbs the critics; one knob, alpha"

    @property
    def noise_dim(self) -> int:
        """The next action, the flow's beginning, the distilled action, and the flow's time."""
        return 3 * self.spec.action_dim + 1

    def init(self, generator: torch.Generator) -> FQLState:
        """Fresh networks."""
        c, o, a = self.cfg, self.input_dim, self.spec.action_dim
        Q = init_mlp([o + a, *c.hidden, 1], generator, members=c.members, layer_norm=c.layer_norm)
        flow = init_mlp([o + a + 1, *c.hidden, a], generator)
        mu = init_mlp([o + a, *c.hidden, a], generator)
        return FQLState(optimised(Q), optimised(flow), optimised(mu), Q)

    def update(self, st: FQLState, b: Batch) -> tuple[FQLState, Metrics]:
        """Critics and target, flow, one-step policy."""
        st, m_Q = self.update_critic(st, b)
        lr = self.cfg.lr * b.lr_scale
        flow, m_flow = st.flow.descend(lambda p: self.loss_flow(p, b), lr)
        mu, m_mu = st.mu.descend(lambda p: self.loss_mu(p, flow.p, st, b), lr)
        return st._replace(flow=flow, mu=mu), m_Q | m_flow | m_mu

    def update_critic(self, st: FQLState, b: Batch) -> tuple[FQLState, Metrics]:
        """Critics and target."""
        z = b.noise[:, : self.spec.action_dim]
        y = b.reward + b.discount * self._bootstrap(q_values(st.Q_targ, b.next_obs, self.act(st, b.next_obs, z)))
        Q, metrics = st.Q.descend(lambda p: td_loss(p, y, b), self.cfg.lr * b.lr_scale)
        return st._replace(Q=Q, Q_targ=polyak(st.Q_targ, Q.p, self.cfg.polyak)), metrics

    def loss_flow(self, p: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Flow matching on straight lines from noise to the data's actions."""
        A = self.spec.action_dim
        z = b.noise[:, A : 2 * A]
        t = torch.special.ndtr(b.noise[:, 3 * A :])  # a standard normal through its distribution function is uniform
        v = velocity(p, b.policy_obs, torch.lerp(z, b.action, t), t)
        loss = (self.imitated(b) * (v - (b.action - z)) ** 2).mean()
        return loss, {"loss/flow": loss.detach()}

    def imitated(self, b: Batch) -> Tensor | float:
        """Weights of the recorded numbers that the flow imitates, to multiply (B, A) with."""
        return 1.0

    def loss_mu(self, p: Params, flow: Params, st: FQLState, b: Batch) -> tuple[Tensor, Metrics]:
        """Stay where the flow leads from the same noise, and climb the critics."""
        A = self.spec.action_dim
        z = b.noise[:, 2 * A : 3 * A]
        a = mlp(p, torch.cat([b.policy_obs, z], -1))
        distance = ((a - self.follow(flow, b.policy_obs, z)) ** 2).mean()
        q = q_values(st.Q.p, b.policy_obs, a.clamp(-1.0, 1.0)).mean()
        loss = self.cfg.alpha * distance - q
        return loss, {"loss/mu": loss.detach(), "distill": distance.detach(), "q_pi": q.detach()}

    def follow(self, flow: Params, obs: Tensor, z: Tensor) -> Tensor:
        """Where the flow takes the noise `z`, in Euler steps: (..., O), (..., A) -> (..., A) in [-1, 1]."""
        a, steps = z, self.cfg.flow_steps
        for i in range(steps):
            a = a + velocity(flow, obs, a, torch.full_like(a[..., :1], i / steps)) / steps
        return a.clamp(-1.0, 1.0)

    def act(self, st: FQLState, obs: Tensor, noise: Tensor) -> Tensor:
        """The one-step policy; greedy with zero noise."""
        return mlp(st.mu.p, torch.cat([obs, noise], -1)).clamp(-1.0, 1.0)

    def q(self, st: FQLState, obs: Tensor, action: Tensor) -> Tensor:
        """What of the critics the target takes."""
        return self._bootstrap(q_values(st.Q.p, obs, action))

    def _bootstrap(self, q: Tensor) -> Tensor:
        return q.amin(0) if self.cfg.target_q == "min" else q.mean(0)


def velocity(p: Params, s: Tensor, a: Tensor, t: Tensor) -> Tensor:
    """The flow's velocity at action `a` and time `t`, (..., O), (..., A), (..., 1) -> (..., A)."""
    return mlp(p, torch.cat([s, a, t], -1))
