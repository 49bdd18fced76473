"""Conservative Q-learning for continuous actions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.configs import CQLConfig
from toolkit.agents.sac import SAC
from toolkit.nn import Net, Params, optimised, policy, q_values
from toolkit.types import Batch, Metrics


class CQLState(NamedTuple):
    """Networks of one seed; `log_penalty` is the logarithm of the Lagrange multiplier."""

    Q: Net
    pi: Net
    log_alpha: Net
    Q_targ: Params
    log_penalty: Net


class CQL(SAC):
    """Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779), CQL(H).

    L_Q = L_Q of SAC + alpha sum_i E [log sum_a exp Q_i(s, a) - Q_i(s, a_data)]              eq. 4
    The sum over actions is estimated by importance sampling with `samples` uniform actions, as many of pi(s) and
    as many of pi(s') (appendix F). With `gap` set, alpha is multiplied by a Lagrange multiplier that holds the
    bracket at `gap` (eq. 30). With `max_backup` the target takes the best of `samples` actions of pi(s').

    Order: multiplier; Q; pi; temperature; Q_targ. Reads: Q <- Q_targ, pi, multiplier; pi <- Q.
    Deviations: no entropy in the target, as in the authors' code. Their code adds up the sampled actions where the
    paper and this take the mean: the bracket is smaller here by log(3 samples), 3.4, and so is a fitting `gap`.
    """

    Config = CQLConfig
    cfg: CQLConfig
    summary = "pushes values of unseen actions down; one knob, alpha; several times slower than iql"

    @property
    def noise_dim(self) -> int:
        """SAC's, and three sets of `samples` actions."""
        return super().noise_dim + 3 * self.cfg.samples * self.spec.action_dim

    def init(self, generator: torch.Generator) -> CQLState:  # type: ignore[override]
        """Fresh networks."""
        return CQLState(*super().init(generator), optimised({"log_penalty": torch.tensor(0.0)}))

    def loss_Q(self, p: Params, y: Tensor, st: CQLState, b: Batch) -> tuple[Tensor, Metrics]:  # type: ignore[override]
        """Temporal differences and the conservative gap."""
        # SAC by name: torch.compile does not follow super() into a gradient
        loss, metrics = SAC.loss_Q(self, p, y, st, b)  # type: ignore[arg-type]
        gaps, m_gap = self.gaps(p, st, b)
        gap = gaps.mean(-1)  # (E,)
        if self.cfg.gap is None:
            penalty = self.cfg.alpha * gap.sum()
        else:
            multiplier = torch.exp(st.log_penalty.p["log_penalty"])
            penalty = self.cfg.alpha * (multiplier * (gap - self.cfg.gap)).sum()
        return loss + penalty, metrics | m_gap | {"cql_gap": gap.mean().detach()}

    def target(self, st: CQLState, b: Batch) -> Tensor:  # type: ignore[override]
        """Soft Bellman target, (B,)."""
        if not self.cfg.max_backup:
            return SAC.target(self, st, b)  # type: ignore[arg-type]
        a, log_prob = _samples(st.pi.p, b.next_obs, self._normals(b)[:, 2])
        v, best = _each(self.judges(st.Q_targ, b), b.next_obs, a).amin(0).max(-1)
        if self.cfg.entropy_backup:
            entropy = -log_prob.gather(-1, best[:, None]).squeeze(-1)
            v = v + torch.exp(st.log_alpha.p["log_alpha"]) * entropy
        return b.reward + b.discount * v

    def bounded(self, q: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
        """What the conservative term reads of Q at the sampled actions, (E, B, 3K): all of it."""
        return q, {}

    def gaps(self, p: Params, st: CQLState, b: Batch) -> tuple[Tensor, Metrics]:
        """log sum exp Q over actions minus Q of the data's action, (E, B)."""
        A, K = self.spec.action_dim, self.cfg.samples
        z = self._normals(b)
        # a standard normal through its distribution function is uniform
        uniform = 2.0 * torch.special.ndtr(z[:, 0]) - 1.0
        here, log_here = _samples(st.pi.p, b.obs, z[:, 1])
        there, log_there = _samples(st.pi.p, b.next_obs, z[:, 2])
        actions = torch.cat([uniform, here, there], 1)  # (B, 3K, A)
        log_density = torch.cat([torch.full_like(log_here, -A * math.log(2.0)), log_here, log_there], 1)
        q, metrics = self.bounded(_each(p, b.obs, actions), b)
        soft = torch.logsumexp(q - log_density, -1) - math.log(3 * K)
        return soft - q_values(p, b.obs, b.action), metrics

    def _normals(self, b: Batch) -> Tensor:
        """The numbers of the uniform actions, of pi(s) and of pi(s'), (B, 3, K, A)."""
        A, K = self.spec.action_dim, self.cfg.samples
        return b.noise[:, -3 * K * A :].reshape(-1, 3, K, A)

    def update_critic(self, st: CQLState, b: Batch) -> tuple[CQLState, Metrics]:  # type: ignore[override]
        """Multiplier, critics, target."""
        if self.cfg.gap is not None:
            log_penalty, _ = st.log_penalty.descend(lambda p: self.loss_penalty(p, st, b), self.cfg.lr * b.lr_scale)
            # at most a million, as the authors have it: where the gap cannot be held it would overflow. The weight is
            # held and not the multiplier alone, which had no gradient then to come down by
            held = {k: w.clamp(max=math.log(1e6)) for k, w in log_penalty.p.items()}
            st = st._replace(log_penalty=log_penalty._replace(p=held))
        return SAC.update_critic(self, st, b)  # type: ignore[arg-type, return-value]

    def loss_penalty(self, p: Params, st: CQLState, b: Batch) -> tuple[Tensor, Metrics]:
        """Raise the multiplier while the gap is above its bound."""
        assert self.cfg.gap is not None
        gap = self.gaps(st.Q.p, st, b)[0].mean(-1).detach()
        return -(torch.exp(p["log_penalty"]) * self.cfg.alpha * (gap - self.cfg.gap)).sum(), {}


def _each(p: Params, obs: Tensor, actions: Tensor) -> Tensor:
    """Critics on several actions for each observation, (B, O), (B, K, A) -> (E, B, K)."""
    B, K, A = actions.shape
    obs = obs[:, None].expand(-1, K, -1)
    return q_values(p, obs.reshape(B * K, -1), actions.reshape(B * K, A)).reshape(-1, B, K)


def _samples(pi: Params, obs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """K actions of the policy at each observation, without gradient: (B, O), (B, K, A) -> (B, K, A), (B, K)."""
    dist = policy(pi, obs)
    dist = type(dist)(dist.mean[:, None], dist.log_std[:, None])
    a, log_prob = dist.sample(z)
    return a.detach(), log_prob.detach()
