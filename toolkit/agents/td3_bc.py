"""TD3 with behaviour cloning."""

from __future__ import annotations

from torch import Tensor

from toolkit.agents.configs import TD3BCConfig
from toolkit.agents.td3 import TD3, TD3State, first_critic, magnitude
from toolkit.nn import Params, policy
from toolkit.types import Batch, Metrics


class TD3BC(TD3):
    """TD3 with behaviour cloning (Fujimoto & Gu 2021, arXiv:2106.06860).

    L_pi = -alpha E Q_1(s, pi(s)) / E |Q_1(s, pi(s))| + E (pi(s) - a)^2
    with the mean over the numbers of an action, and no gradient through the scale; the rest is TD3's.

    Order, reads, deviations: TD3's.
    """

    Config = TD3BCConfig
    cfg: TD3BCConfig
    summary = "climbs the critics on a leash to the data; quick, one knob, alpha"
    offline = True

    def loss_pi(self, p: Params, st: TD3State, b: Batch) -> tuple[Tensor, Metrics]:
        """Climb the first critic, stay near the data."""
        a = policy(p, b.policy_obs).mode
        q = first_critic(st.Q.p, b.policy_obs, a)
        distance = ((a - b.action) ** 2).mean()
        loss = distance - self.cfg.alpha * q.mean() / magnitude(q)
        return loss, {"loss/pi": loss.detach(), "q_pi": q.mean().detach(), "distance": distance.detach()}
