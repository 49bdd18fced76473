"""Hierarchical implicit Q-learning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.awr import advantage_weights
from toolkit.agents.base import Agent
from toolkit.agents.configs import HIQLConfig
from toolkit.agents.iql import expectile_weight
from toolkit.nn import Net, Params, init_mlp, init_policy, mlp, optimised, policy, polyak
from toolkit.types import Batch, Metrics, Spec, ToolkitError

_ZOOM = 2.0  # a waypoint is a fraction of the maze away, and inputs are best around 1


class HIQLState(NamedTuple):
    """Networks of one seed: `high` proposes a waypoint's goal, `low` is the policy towards it."""

    V: Net
    low: Net
    high: Net
    V_targ: Params


class HIQL(Agent[HIQLState]):
    """Hierarchical implicit Q-learning (Park et al. 2023, arXiv:2307.11949).

    L_V    = E sum_i |expectile - 1(u < 0)| (q_i - V_i(s, g))^2,  q_i = r + discount V_targ_i(s', g),
             u = r + discount min_i V_targ_i(s', g) - mean_i V_targ_i(s, g)                      eq. 4
    L_high = E exp(beta (V(w, g) - V(s, g))) |high(s, g) - w_goal|^2 / 2                         eq. 6
    L_low  = -E exp(beta (V(s', w_goal) - V(s, w_goal))) log low(a | s, w_goal)                  eq. 7
    The waypoint w is the state `waypoint_steps` ahead on the way to the policy's goal g, w_goal what it achieved;
    weights are cut at `weight_max`. L_V has its own, drawn goal g.

    Order: V on V_targ; V_targ; high and low on the new V. Reads: V <- V_targ; high <- V; low <- V.
    Acting: a = low(s, high(s, g)). With noise only the lower level explores.
    Deviations: the upper level proposes the waypoint's goal itself and not a learned representation of it, since a
    goal is a few numbers here; it has no standard deviation (the authors' is 1). The lower level's depends on the
    state. Both levels read the same waypoint, which is the goal where that is nearer. Rewards may be n-step sums;
    the lower level then judges its action by the same n steps, which end early where V's own goal is near. With
    `places` V and `high` read (place, goal) for (s, g), and `low` reads (s, w_goal - place): a robot that has to
    balance shows too little of a maze from each of its postures, and the way to a waypoint nearby is a small
    difference of two places.
    """

    Config = HIQLConfig
    cfg: HIQLConfig
    summary = "stitches far: one level proposes waypoints, one walks to them"
    goals = True
    policies = ("low", "high")
    needs = frozenset({"waypoint"})

    def __init__(self, cfg: HIQLConfig, spec: Spec) -> None:
        super().__init__(cfg, spec)
        if cfg.places and not spec.position_dim:
            raise ToolkitError("hiql: places: true is for mazes, and this task is played in none; expected false")

    @property
    def waypoint_steps(self) -> int:
        """Steps from a state to the waypoint that the upper level learns to propose."""
        return self.cfg.waypoint_steps

    def init(self, generator: torch.Generator) -> HIQLState:
        """Fresh networks."""
        c, o, G = self.cfg, self.spec.obs_dim, self.spec.goal_dim
        walked = o if c.places else self.input_dim
        seen = self.input_dim - (o - self.spec.position_dim - G if c.places else 0)
        V = init_mlp([seen, *c.hidden, 1], generator, members=2, layer_norm=c.layer_norm)
        low = init_policy(walked, self.spec.action_dim, c.hidden, generator)
        high = init_mlp([seen, *c.hidden, G], generator)
        return HIQLState(optimised(V), optimised(low), optimised(high), V)

    def features(self, obs: Tensor) -> Tensor:
        """As they are, (..., O): waves are of the goal that each network sees, which is exchanged here first."""
        return obs

    def update(self, st: HIQLState, b: Batch) -> tuple[HIQLState, Metrics]:
        """V, both levels of the policy, the target."""
        st, m_V = self.update_critic(st, b)
        lr = self.cfg.lr * b.lr_scale
        high, m_high = st.high.descend(lambda p: self.loss_high(p, st.V.p, b), lr)
        low, m_low = st.low.descend(lambda p: self.loss_low(p, st.V.p, b), lr)
        return st._replace(low=low, high=high), m_V | m_high | m_low

    def update_critic(self, st: HIQLState, b: Batch) -> tuple[HIQLState, Metrics]:
        """V and target."""
        there, here = self._values(st.V_targ, b.next_obs), self._values(st.V_targ, b.obs)  # (2, B)
        u = b.reward + b.discount * there.amin(0) - here.mean(0)
        y = b.reward + b.discount * there
        V, metrics = st.V.descend(lambda p: self.loss_V(p, y, u, b), self.cfg.lr * b.lr_scale)
        return st._replace(V=V, V_targ=polyak(st.V_targ, V.p, self.cfg.polyak)), metrics

    def loss_V(self, p: Params, q: Tensor, u: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
        """Expectile regression without actions: the targets' advantage `u` gives the weight."""
        v = self._values(p, b.obs)
        loss = (expectile_weight(u, self.cfg.expectile) * (q - v) ** 2).mean(-1).sum()
        return loss, {"loss/V": loss.detach(), "v": v.mean().detach()}

    def loss_high(self, p: Params, V: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Imitate the waypoints from which the goal is nearer."""
        goal = self._goal(b.policy_obs)
        weight = self._weight(V, b.policy_obs, self._towards(b.waypoint, goal))
        error = (mlp(p, self._map(b.policy_obs)) - self._goal(b.waypoint)) ** 2
        loss = 0.5 * (weight * error.sum(-1)).mean()
        return loss, {"loss/high": loss.detach(), "waypoint_error": error.mean().sqrt().detach()}

    def loss_low(self, p: Params, V: Params, b: Batch) -> tuple[Tensor, Metrics]:
        """Imitate the actions after which the waypoint is nearer."""
        waypoint = self._goal(b.waypoint)
        obs = self._towards(b.obs, waypoint)
        log_prob = policy(p, self._walk(obs)).log_prob(b.action)
        loss = -(self._weight(V, obs, self._towards(b.next_obs, waypoint)) * log_prob).mean()
        return loss, {"loss/low": loss.detach(), "log_prob": log_prob.mean().detach()}

    def _weight(self, V: Params, before: Tensor, after: Tensor) -> Tensor:
        """Weight of a step from `before` to `after`, both (B, O) with the same goal, (B,)."""
        gain = self._values(V, after).mean(0) - self._values(V, before).mean(0)
        return advantage_weights(gain, self.cfg.beta, self.cfg.weight_max)

    def _values(self, p: Params, obs: Tensor) -> Tensor:
        """Both values of states with goals, (..., O) -> (2, ...)."""
        return mlp(p, self._map(obs)).squeeze(-1)

    def _map(self, obs: Tensor) -> Tensor:
        """What V and the upper level see of states with goals."""
        if not self.cfg.places:
            return super().features(obs)
        places = torch.cat([obs[..., : self.spec.position_dim], self._goal(obs)], -1)
        return torch.cat([places, *self.waves(places)], -1)

    def _walk(self, obs: Tensor) -> Tensor:
        """What the lower level sees of states with waypoints."""
        if not self.cfg.places:
            return super().features(obs)
        return self._towards(obs, _ZOOM * (self._goal(obs) - obs[..., : self.spec.position_dim]))

    def _goal(self, obs: Tensor) -> Tensor:
        return obs[..., self.spec.obs_dim - self.spec.goal_dim :]

    def _towards(self, obs: Tensor, goal: Tensor) -> Tensor:
        """`obs` with another goal, (..., O), (..., G) -> (..., O)."""
        return torch.cat([obs[..., : self.spec.obs_dim - self.spec.goal_dim], goal], -1)

    def propose(self, st: HIQLState, obs: Tensor) -> Tensor:
        """The goal that the upper level sets the lower one, (..., O) -> (..., G)."""
        return mlp(st.high.p, self._map(obs))

    def act(self, st: HIQLState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample of the lower level; greedy with zero noise."""
        return policy(st.low.p, self._walk(self._towards(obs, self.propose(st, obs)))).draw_around(noise)

    def q(self, st: HIQLState, obs: Tensor, action: Tensor) -> Tensor:
        """V(s, g), which knows no actions."""
        return self._values(st.V.p, obs).mean(0)
