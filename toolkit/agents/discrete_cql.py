"""Conservative Q-learning for one of several actions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.base import Agent
from toolkit.agents.configs import DiscreteCQLConfig
from toolkit.nn import Net, Params, init_mlp, mlp, one_hot, optimised, polyak
from toolkit.types import Batch, Metrics


class DiscreteCQLState(NamedTuple):
    """Networks of one seed; each critic has one output per action."""

    Q: Net
    Q_targ: Params


class DiscreteCQL(Agent[DiscreteCQLState]):
    """Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779), CQL(H), on double DQN (arXiv:1509.06461).

    y   = r + discount min_i Q_targ_i(s', a'),   a' = argmax_a min_i Q_i(s', a)
    L_Q = sum_i E (Q_i(s, a) - y)^2 + alpha E [log sum_a exp Q_i(s, a) - Q_i(s, a_data)]       eq. 4

    Order: Q; Q_targ. Reads: Q <- Q_targ, and Q for a'.
    In the simulator a share `epsilon` of the actions is random.
    Deviations: squared differences where the authors learn quantiles; a target that follows slowly where theirs jumps.
    """

    Config = DiscreteCQLConfig
    cfg: DiscreteCQLConfig
    summary = "CQL for a choice between actions; with alpha 0 it is double DQN"
    discrete = True
    policies = ("Q",)
    continuous = False

    @property
    def act_noise_dim(self) -> int:
        """Whether to act at random, and a lot for each action."""
        return 1 + self.spec.action_dim

    def init(self, generator: torch.Generator) -> DiscreteCQLState:
        """Fresh critics."""
        c, sizes = self.cfg, [self.input_dim, *self.cfg.hidden, self.spec.action_dim]
        Q = init_mlp(sizes, generator, members=c.members, layer_norm=c.layer_norm)
        return DiscreteCQLState(optimised(Q), Q)

    def update(self, st: DiscreteCQLState, b: Batch) -> tuple[DiscreteCQLState, Metrics]:
        """Critics, then their target."""
        best = one_hot(mlp(st.Q.p, b.next_obs).amin(0))  # (B, A)
        y = b.reward + b.discount * (mlp(st.Q_targ, b.next_obs) * best).sum(-1).amin(0)
        Q, metrics = st.Q.descend(lambda p: self.loss_Q(p, y, b), self.cfg.lr * b.lr_scale)
        return DiscreteCQLState(Q, polyak(st.Q_targ, Q.p, self.cfg.polyak)), metrics

    def loss_Q(self, p: Params, y: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
        """Temporal differences and the conservative gap."""
        every = mlp(p, b.obs)  # (E, B, A)
        q = (every * b.action).sum(-1)
        gap = (torch.logsumexp(every, -1) - q).mean(-1)
        loss = ((q - y) ** 2).mean(-1).sum() + self.cfg.alpha * gap.sum()
        return loss, {"loss/Q": loss.detach(), "q": q.mean().detach(), "cql_gap": gap.mean().detach()}

    def act(self, st: DiscreteCQLState, obs: Tensor, noise: Tensor) -> Tensor:
        """One-hot actions, epsilon-greedy; greedy with zero noise."""
        q = mlp(st.Q.p, obs.unsqueeze(-3)).amin(-3)
        # a standard normal through its distribution function is uniform; zero is its middle
        random = torch.special.ndtr(noise[..., :1]) > 1.0 - self.cfg.epsilon
        return one_hot(torch.where(random, noise[..., 1:], q))

    def q(self, st: DiscreteCQLState, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest critic."""
        return (mlp(st.Q.p, obs) * action).sum(-1).amin(0)
