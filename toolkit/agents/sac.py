"""Soft actor-critic, with ensembles of critics."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import SACConfig
from toolkit.nn import Net, Params, init_mlp, init_policy, optimised, policy, polyak, q_values, td_loss
from toolkit.types import Batch, Metrics, Spec


class SACState(NamedTuple):
    """Networks of one seed."""

    Q: Net
    pi: Net
    log_alpha: Net
    Q_targ: Params


class SAC(Agent[SACState]):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905).

    y     = r + discount (min_i Q_targ_i(s', a') - alpha log pi(a' | s')),  a' ~ pi(s')     eq. 5, 6
    L_Q   = E (Q(s, a) - y)^2                                                              eq. 5
    L_pi  = E alpha log pi(a | s) - min_i Q_i(s, a),  a ~ pi(s) reparametrised              eq. 9
    L_alpha = -E log_alpha (log pi(a | s) + target_entropy)                                 eq. 18

    Order: Q on Q_targ and the old pi; pi on the new Q; alpha; Q_targ.
    Reads: Q <- Q_targ, pi; pi <- Q.
    Options of later work: `members` critics with the target's minimum over a random `subset` (arXiv:2101.05982),
    LayerNorm, the actor on the mean of the critics, no entropy in the target.
    With goals drawn anew it is SAC with hindsight replay (HER, arXiv:1707.01495); L_pi is for the policy's goal.
    Deviations: the temperature's loss is on log_alpha, as in the authors' later code. With n-step rewards the entropy
    of the steps between is not counted: take `entropy_backup: false` there.
    """

    Config = SACConfig
    cfg: SACConfig
    summary = "in the simulator, from scratch or from an offline stage; overestimates on recorded data alone"
    entropy_share: ClassVar[float] = 1.0
    """Target entropy, as a multiple of minus the numbers in an action, where the settings give none."""

    def __init__(self, cfg: SACConfig, spec: Spec) -> None:
        super().__init__(cfg, spec)
        default = -self.entropy_share * spec.action_dim
        self.target_entropy = default if cfg.target_entropy is None else cfg.target_entropy

    @property
    def noise_dim(self) -> int:
        """Two action samples, and a lot to draw for each critic where a subset is chosen."""
        return 2 * self.spec.action_dim + (self.cfg.members if self.cfg.subset else 0)

    def init(self, generator: torch.Generator) -> SACState:
        """Fresh networks."""
        c, o, a = self.cfg, self.input_dim, self.spec.action_dim
        Q = init_mlp([o + a, *c.hidden, 1], generator, members=c.members, layer_norm=c.layer_norm)
        pi = init_policy(o, a, c.hidden, generator, layer_norm=c.policy_layer_norm)
        log_alpha = {"log_alpha": torch.tensor(math.log(c.temperature))}
        return SACState(optimised(Q), optimised(pi), optimised(log_alpha), Q)

    def update(self, st: SACState, b: Batch) -> tuple[SACState, Metrics]:
        """Critics, policy, temperature, target."""
        st, m_Q = self.update_critic(st, b)
        lr_policy = (self.cfg.lr_policy or self.cfg.lr) * b.lr_scale
        pi, m_pi = st.pi.descend(lambda p: self.loss_pi(p, st, b), lr_policy)
        log_alpha, m_alpha = st.log_alpha.descend(
            lambda p: self.loss_alpha(p, m_pi["entropy"]), self.cfg.temperature_lr * b.lr_scale
        )
        return st._replace(pi=pi, log_alpha=log_alpha), m_Q | m_pi | m_alpha

    def update_critic(self, st: SACState, b: Batch) -> tuple[SACState, Metrics]:
        """Critics and target."""
        y = self.target(st, b)
        Q, metrics = st.Q.descend(lambda p: self.loss_Q(p, y, st, b), self.cfg.lr * b.lr_scale)
        return st._replace(Q=Q, Q_targ=polyak(st.Q_targ, Q.p, self.cfg.polyak)), metrics

    def target(self, st: SACState, b: Batch) -> Tensor:
        """Soft Bellman target, (B,)."""
        A = self.spec.action_dim
        a, log_prob = policy(st.pi.p, b.next_obs).sample(b.noise[..., :A])
        v = q_values(self.judges(st.Q_targ, b), b.next_obs, a).amin(0)
        if self.cfg.entropy_backup:
            v = v - torch.exp(st.log_alpha.p["log_alpha"]) * log_prob
        return b.reward + b.discount * v

    def judges(self, p: Params, b: Batch) -> Params:
        """The target critics of this batch: all of them, or the subset that is drawn for it."""
        if not self.cfg.subset:
            return p
        A, E = self.spec.action_dim, self.cfg.members
        lots = b.noise[0, 2 * A : 2 * A + E]
        if self.cfg.replacement:
            # a standard normal through its distribution function is uniform
            drawn = (torch.special.ndtr(lots[: self.cfg.subset]) * E).long().clamp(max=E - 1)
        else:
            drawn = lots.topk(self.cfg.subset).indices
        return {k: w[drawn] for k, w in p.items()}

    def loss_Q(self, p: Params, y: Tensor, st: SACState, b: Batch) -> tuple[Tensor, Metrics]:
        """Squared temporal difference, summed over the critics."""
        return td_loss(p, y, b)

    def loss_pi(self, p: Params, st: SACState, b: Batch) -> tuple[Tensor, Metrics]:
        """Climb the critics, keep the entropy."""
        A = self.spec.action_dim
        a, log_prob = policy(p, b.policy_obs).sample(b.noise[..., A : 2 * A])
        q = q_values(st.Q.p, b.policy_obs, a)
        q = q.amin(0) if self.cfg.actor_q == "min" else q.mean(0)
        loss = (torch.exp(st.log_alpha.p["log_alpha"]) * log_prob - q).mean()
        return loss, {"loss/pi": loss.detach(), "entropy": -log_prob.mean().detach(), "q_pi": q.mean().detach()}

    def loss_alpha(self, p: Params, entropy: Tensor) -> tuple[Tensor, Metrics]:
        """Hold the entropy at its target."""
        loss = p["log_alpha"] * (entropy - self.target_entropy)
        return loss, {"temperature": torch.exp(p["log_alpha"]).detach()}

    def act(self, st: SACState, obs: Tensor, noise: Tensor) -> Tensor:
        """Squashed normal sample; greedy with zero noise."""
        return policy(st.pi.p, obs).draw(noise)

    def q(self, st: SACState, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest critic."""
        return q_values(st.Q.p, obs, action).amin(0)
