"""Policy expansion: an offline policy kept, a new one beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.agents.awr import advantage_weights
from toolkit.agents.configs import PEXConfig
from toolkit.agents.iql import IQL
from toolkit.nn import Net, Params, init_policy, mlp, optimised, policy, q_values
from toolkit.types import Batch, Metrics


class PEXState(NamedTuple):
    """Networks of one seed; `pi_old` is the offline policy, never trained."""

    V: Net
    Q: Net
    pi: Net
    Q_targ: Params
    pi_old: Net


class PEX(IQL):
    """Policy expansion (Zhang et al. 2023, arXiv:2302.00935), on IQL.

    a     = greedy action of pi_old or sample of pi, chosen by softmax(Q(s, .) / temperature)    eq. 4
    L_V, L_Q: IQL's
    L_pi  = -E min(exp(beta u), weight_max) log pi(a | s),   u = min Q_targ(s, a) - V(s), a chosen as above
    log pi is the density of the squashed normal that the samples come from: under another one, as IQL has it for
    recorded actions, a policy that imitates its own samples drifts to 0 and stops exploring.

    Order: IQL's. Reads: V <- Q_targ; pi <- Q_targ, V, and Q, pi, pi_old for its actions; Q <- V at s'.
    Deviations: IQL's; without noise both propose their greedy action and the larger Q decides, where the authors
    evaluate with a tenth of random choices.
    """

    Config = PEXConfig  # type: ignore[assignment]
    cfg: PEXConfig  # type: ignore[assignment]
    summary = "goes on from an offline stage, keeps its policy as it is and lets a new one take over where it is better"
    offline = False
    carries = {"pi_old": "pi"}  # noqa: RUF012

    @property
    def noise_dim(self) -> int:
        """An action for the policy's loss."""
        return self.act_noise_dim

    @property
    def act_noise_dim(self) -> int:
        """A sample of pi, and the choice."""
        return self.spec.action_dim + 1

    def init(self, generator: torch.Generator) -> PEXState:  # type: ignore[override]
        """Fresh networks."""
        fresh = super().init(generator)
        old = init_policy(self.input_dim, self.spec.action_dim, self.cfg.hidden, generator)
        return PEXState(*fresh, optimised(old))

    def loss_pi(self, p: Params, V: Params, q: Tensor, st: PEXState, b: Batch) -> tuple[Tensor, Metrics]:  # type: ignore[override]
        """Regression on the actions that would be taken, weighted by their advantage."""
        before, old = self._choose(st, b.policy_obs, b.noise)
        a = torch.tanh(before)
        u = q_values(st.Q_targ, b.policy_obs, a).amin(0) - mlp(V, b.policy_obs).squeeze(-1)
        weight = advantage_weights(u, self.cfg.beta, self.cfg.weight_max)
        log_prob = policy(p, b.policy_obs).squashed_log_prob(before)
        loss = -(weight * log_prob).mean()
        return loss, {"loss/pi": loss.detach(), "log_prob": log_prob.mean().detach(), "old_share": old.float().mean()}

    def act(self, st: PEXState, obs: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        """The chosen one of two proposals; zero noise takes the greedy one with the larger Q."""
        return torch.tanh(self._choose(st, obs, noise)[0])

    def _choose(self, st: PEXState, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions before the squashing, (..., A), and whether they are the old policy's, (...)."""
        old, new = policy(st.pi_old.p, obs).mean, policy(st.pi.p, obs).unsquashed(noise[..., :-1])
        s = obs.unsqueeze(-3)
        q_old, q_new = (q_values(st.Q.p, s, torch.tanh(u).unsqueeze(-3)).amin(-2) for u in (old, new))
        # a standard normal made logistic: the difference passes it as often as the softmax says
        z = noise[..., -1]
        logistic = torch.log(torch.special.ndtr(z)) - torch.log(torch.special.ndtr(-z))
        keep = (q_old - q_new) / self.cfg.temperature > logistic
        return torch.where(keep[..., None], old, new).detach(), keep
