"""Revisited behaviour-regularised actor-critic."""

from __future__ import annotations

from torch import Tensor

from toolkit.agents.configs import ReBRACConfig
from toolkit.agents.td3 import TD3, TD3State, magnitude
from toolkit.nn import Params, policy, q_values
from toolkit.types import Batch, Metrics


class ReBRAC(TD3):
    """Revisited behaviour-regularised actor-critic (Tarasov et al. 2023, arXiv:2305.09836).

    y    = r + discount (min_i Q_targ_i(s', a') - alpha_critic |a' - a'_data|^2)
    L_pi = alpha_policy E |pi(s) - a|^2 - E min_i Q_i(s, pi(s)) / E |min_i Q_i(s, pi(s))|
    with sums over the numbers of an action, and no gradient through the scale; the rest is TD3's.

    Order, reads: TD3's. Deviations: TD3's; LayerNorm before the activation; a recording that stops has no next action
    (zeros stand for it), and no penalty there where the authors drop the transition.
    """

    Config = ReBRACConfig
    cfg: ReBRACConfig
    summary = "TD3 with penalties on policy and critics and LayerNorm; strong, two knobs"
    offline = True
    needs = frozenset({"next_action"})

    def next_value(self, a: Tensor, st: TD3State, b: Batch) -> Tensor:
        """TD3's, less the distance to the recorded next action."""
        recorded = (b.next_action != 0).any(-1)
        distance = ((a - b.next_action) ** 2).sum(-1) * recorded
        return TD3.next_value(self, a, st, b) - self.cfg.alpha_critic * distance

    def loss_pi(self, p: Params, st: TD3State, b: Batch) -> tuple[Tensor, Metrics]:
        """Climb the smallest critic, stay near the data."""
        a = policy(p, b.policy_obs).mode
        q = q_values(st.Q.p, b.policy_obs, a).amin(0)
        distance = ((a - b.action) ** 2).sum(-1).mean()
        loss = self.cfg.alpha_policy * distance - q.mean() / magnitude(q)
        return loss, {"loss/pi": loss.detach(), "q_pi": q.mean().detach(), "distance": distance.detach()}
