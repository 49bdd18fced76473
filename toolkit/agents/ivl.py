"""Implicit value learning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.awr import advantage_weights, weighted_imitation
from toolkit.agents.base import Agent
from toolkit.agents.configs import IVLConfig
from toolkit.agents.iql import expectile_weight
from toolkit.nn import Net, Params, init_mlp, init_policy, mlp, optimised, policy, polyak
from toolkit.types import Batch, Metrics


class IVLState(NamedTuple):
    """Networks of one seed; V is an ensemble."""

    V: Net
    pi: Net
    V_targ: Params


class IVL(Agent[IVLState]):
    """Implicit value learning: IQL without Q, as GCIVL of OGBench (Park et al. 2024, arXiv:2410.20092).

    u    = r + discount min_i V_targ_i(s') - mean_i V_targ_i(s)
    L_V  = sum_i E |expectile - 1(u < 0)| (r + discount V_targ_i(s') - V_i(s))^2
    A    = r + discount mean_i V_i(s') - mean_i V_i(s)
    L_pi = -E min(exp(beta A), weight_max) log pi(a | s)

    Order: V on V_targ; pi on the new V; V_targ. Reads: V <- V_targ; pi <- V at s and s'. Where the world throws
    dice, V takes luck for skill: without Q it cannot tell a good action from a good outcome.
    Deviations: where the policy sees no goal, A counts the reward and the discount; where it does, A is the plain
    difference of V as in OGBench, since the batch has no reward for the policy's goal, over n steps that end early
    where V's own goal is near. pi reads V after its update.
    """

    Config = IVLConfig
    cfg: IVLConfig
    summary = "stitches with V alone, cheaper than IQL; too hopeful where chance decides"

    def init(self, generator: torch.Generator) -> IVLState:
        """Fresh networks."""
        c, o = self.cfg, self.input_dim
        V = init_mlp([o, *c.hidden, 1], generator, members=c.members, layer_norm=c.layer_norm)
        return IVLState(optimised(V), optimised(init_policy(o, self.spec.action_dim, c.hidden, generator)), V)

    def update(self, st: IVLState, b: Batch) -> tuple[IVLState, Metrics]:
        """V, policy, target."""
        st, m_V = self.update_critic(st, b)
        weight = advantage_weights(self.advantage(st.V.p, b), self.cfg.beta, self.cfg.weight_max)
        lr = self.cfg.lr * b.lr_scale
        pi, m_pi = st.pi.descend(lambda p: weighted_imitation(p, b.policy_obs, b.action, weight), lr)
        return st._replace(pi=pi), m_V | m_pi

    def update_critic(self, st: IVLState, b: Batch) -> tuple[IVLState, Metrics]:
        """V and target."""
        y = b.reward + b.discount * _values(st.V_targ, b.next_obs)  # (E, B)
        u = y.amin(0) - _values(st.V_targ, b.obs).mean(0)
        V, metrics = st.V.descend(lambda p: self.loss_V(p, y, u, b), self.cfg.lr * b.lr_scale)
        return st._replace(V=V, V_targ=polyak(st.V_targ, V.p, self.cfg.polyak)), metrics

    def loss_V(self, p: Params, y: Tensor, u: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
        """Expectile regression of each V on its own target, all with the same weights."""
        v = _values(p, b.obs)
        loss = (expectile_weight(u, self.cfg.expectile) * (y - v) ** 2).mean(-1).sum()
        return loss, {"loss/V": loss.detach(), "v": v.mean().detach()}

    def advantage(self, V: Params, b: Batch) -> Tensor:
        """How much better the state after is than the one before, (B,)."""
        if not self.spec.goal_dim:
            return b.reward + b.discount * _values(V, b.next_obs).mean(0) - _values(V, b.obs).mean(0)
        return _values(V, self.aimed(b.next_obs, b.policy_obs)).mean(0) - _values(V, b.policy_obs).mean(0)

    def act(self, st: IVLState, obs: Tensor, noise: Tensor) -> Tensor:
        """Normal sample; greedy with zero noise."""
        return policy(st.pi.p, obs).draw_around(noise)


def _values(p: Params, s: Tensor) -> Tensor:
    """V of every member, (B, O) -> (E, B)."""
    return mlp(p, s).squeeze(-1)
