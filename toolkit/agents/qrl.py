"""Quasimetric reinforcement learning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.agents.base import Agent
from toolkit.agents.configs import QRLConfig
from toolkit.nn import Net, Params, init_mlp, init_policy, mlp, optimised, policy
from toolkit.types import Batch, Metrics

_INTERVALS = 8  # of one component of the embedding


class QRLState(NamedTuple):
    """Networks of one seed: `d` holds the embeddings phi (states) and psi (goals) and the head's mix; `T` the model."""

    d: Net
    log_lambda: Net
    T: Net
    pi: Net


class QRL(Agent[QRLState]):
    """Quasimetric reinforcement learning (Wang et al. 2023, arXiv:2304.01203), every step at cost 1.

    maximise   E softened d(s, g)                  over states and goals drawn independently       eq. 8, 10
    subject to E relu(d(s, s') - 1)^2 + d(s', achieved(s'))^2 <= slack, by a multiplier lambda
    d(s, s') = iqe(phi(s), phi(s')),  d(s, g) = iqe(phi(s), psi(g)): the triangle inequality holds by construction
    L_T  = E (iqe(x', phi(s')) + iqe(phi(s'), x')) / 2,  x' = phi(s) + T(phi(s), a)
    L_pi = E d / |d| - alpha log pi(a | s, g),  d = iqe(phi(s) + T(phi(s), pi(s, g)), psi(g))      ("ddpgbc" of IQL)
    softened: -softplus(5 - 5 d / far) far / 5, which is d - far well below `far` and flat beyond it.

    Order: phi and psi; lambda; T on the new d; pi on both. Reads: d <- lambda; T <- d; pi <- d, T. No target networks.
    Deviations: a goal is not a state here but what states achieve. It is a node of its own, and a step from a
    state to the goal it achieves costs 0 under the same multiplier; so d(s, g) is the way to the nearest state that
    achieves g. s' is the waypoint one step ahead, so n-step batches and rewards change nothing. L_T does not move
    the embeddings: what makes them easy to predict draws the states together that one state leads to. The policy's
    standard deviation depends on the state.
    """

    Config = QRLConfig
    cfg: QRLConfig
    summary = "distances that keep the triangle inequality; proven on open ground; among walls it varies by seed"
    goals = True
    needs = frozenset({"waypoint"})

    @property
    def waypoint_steps(self) -> int:
        """The next state, with the goal it achieves."""
        return 1

    def init(self, generator: torch.Generator) -> QRLState:
        """Fresh networks."""
        c, a, G = self.cfg, self.spec.action_dim, self.spec.goal_dim
        goal = G * (1 + 2 * len(self.frequencies))
        d = {"mix": torch.zeros(())}
        for name, size in (("phi", self.input_dim - goal), ("psi", goal)):
            net = init_mlp([size, *c.hidden, c.latent_dim], generator, layer_norm=c.layer_norm)
            d |= {f"{name}.{k}": w for k, w in net.items()}
        T = init_mlp([c.latent_dim + a, *c.hidden, c.latent_dim], generator, layer_norm=c.layer_norm)
        pi = init_policy(self.input_dim, a, c.hidden, generator)
        return QRLState(optimised(d), optimised({"log_lambda": torch.zeros(())}), optimised(T), optimised(pi))

    def features(self, obs: Tensor) -> Tensor:
        """As they are, (..., O): states and goals go apart before waves are made of them."""
        return obs

    def update(self, st: QRLState, b: Batch) -> tuple[QRLState, Metrics]:
        """Distances, multiplier, model, policy."""
        st, metrics = self.update_critic(st, b)
        pi, m_pi = st.pi.descend(lambda p: self.loss_pi(p, st.d.p, st.T.p, b), self.cfg.lr * b.lr_scale)
        return st._replace(pi=pi), metrics | m_pi

    def update_critic(self, st: QRLState, b: Batch) -> tuple[QRLState, Metrics]:
        """Distances, multiplier, model."""
        lr = self.cfg.lr * b.lr_scale
        d, m_d = st.d.descend(lambda p: self.loss_d(p, st, b), lr)
        log_lambda, m_lambda = st.log_lambda.descend(
            lambda p: self.loss_lambda(p, m_d["excess"]), self.cfg.lr_lambda * b.lr_scale
        )
        T, m_T = st.T.descend(lambda p: self.loss_T(p, d.p, b), lr)
        return QRLState(d, log_lambda, T, st.pi), m_d | m_lambda | m_T

    def loss_d(self, p: Params, st: QRLState, b: Batch) -> tuple[Tensor, Metrics]:
        """Push states and goals apart, hold steps at 1."""
        (s, g), (s_next, g_next) = self._split(b.obs), self._split(b.waypoint)
        x, x_next = embed(p, "phi", s), embed(p, "phi", s_next)
        away = iqe(p, x, embed(p, "psi", g))
        excess = F.relu(iqe(p, x, x_next) - 1.0) ** 2 + iqe(p, x_next, embed(p, "psi", g_next)) ** 2
        excess = excess.mean()
        scale = self.cfg.far / 5.0
        push = (F.softplus(5.0 - away / scale) * scale).mean()
        loss = push + torch.exp(st.log_lambda.p["log_lambda"]) * excess
        return loss, {"loss/d": loss.detach(), "d": away.mean().detach(), "excess": excess.detach()}

    def loss_lambda(self, p: Params, excess: Tensor) -> tuple[Tensor, Metrics]:
        """Raise the multiplier while steps are longer than they may be."""
        weight = torch.exp(p["log_lambda"])
        return weight * (self.cfg.slack - excess), {"lambda": weight.detach()}

    def loss_T(self, p: Params, d: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Predict the next state's embedding, there and back near it."""
        x, x_next = embed(d, "phi", self._split(b.obs)[0]), embed(d, "phi", self._split(b.waypoint)[0])
        guess = predict(p, x, b.action)
        loss = 0.5 * (iqe(d, guess, x_next) + iqe(d, x_next, guess)).mean()
        return loss, {"loss/T": loss.detach()}

    def loss_pi(self, p: Params, d: Params, T: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Go where the model says the goal is near, and imitate."""
        dist = policy(p, super().features(b.policy_obs))
        log_prob = dist.log_prob(b.action).mean()
        s, g = self._split(b.policy_obs)
        left = iqe(d, predict(T, embed(d, "phi", s), dist.mode), embed(d, "psi", g)).mean()
        loss = left / (left.detach() + 1e-6) - self.cfg.alpha * log_prob
        return loss, {"loss/pi": loss.detach(), "log_prob": log_prob.detach(), "d_pi": left.detach()}

    def _split(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """State and goal with the waves of each, (..., O) -> (..., O - G + W), (..., G + W)."""
        cut = self.spec.obs_dim - self.spec.goal_dim
        s, g = obs[..., :cut], obs[..., cut:]
        return torch.cat([s, *self.waves(s[..., : self.spec.position_dim])], -1), torch.cat([g, *self.waves(g)], -1)

    def distance(self, st: QRLState, obs: Tensor) -> Tensor:
        """Steps to the goal, (..., O) -> (...)."""
        s, g = self._split(obs)
        return iqe(st.d.p, embed(st.d.p, "phi", s), embed(st.d.p, "psi", g))

    def act(self, st: QRLState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample; greedy with zero noise."""
        return policy(st.pi.p, super().features(obs)).draw_around(noise)


def embed(d: Params, name: str, x: Tensor) -> Tensor:
    """Embedding of states (`name` phi) or goals (psi), (..., in) -> (..., latent_dim)."""
    prefix = f"{name}."
    return mlp({k.removeprefix(prefix): w for k, w in d.items() if k.startswith(prefix)}, x)


def predict(T: Params, x: Tensor, a: Tensor) -> Tensor:
    """Embedding of the state that follows, (..., latent_dim), (..., A) -> (..., latent_dim)."""
    return x + mlp(T, torch.cat([x, a], -1))


def iqe(d: Params, x: Tensor, y: Tensor) -> Tensor:
    """Interval quasimetric embedding (Wang & Isola 2022, arXiv:2211.15120), "maxmean": (..., latent_dim) -> (...).

    A component is the length of the union of the intervals from x_j to max(x_j, y_j); the distance lies between the
    components' mean and their maximum. In order of their beginnings, each interval adds what lies beyond all before.
    """
    x, y = x.unflatten(-1, (-1, _INTERVALS)), y.unflatten(-1, (-1, _INTERVALS))
    begin, order = x.sort(-1)
    end = torch.maximum(x, y).gather(-1, order)
    covered = torch.cat([begin[..., :1], end.cummax(-1).values[..., :-1]], -1)
    components = F.relu(end - torch.maximum(begin, covered)).sum(-1)
    return torch.lerp(components.amax(-1), components.mean(-1), torch.sigmoid(d["mix"]))
