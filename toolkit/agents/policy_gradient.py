"""The on-policy ladder: from REINFORCE over three ways to learn a critic to generalised advantage estimation."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.agents.base import Agent
from toolkit.agents.configs import (
    ActorCriticMCConfig,
    ActorCriticQConfig,
    ActorCriticTDConfig,
    PolicyGradientConfig,
    ReinforceBaselineConfig,
    ReinforceConfig,
)
from toolkit.nn import Categorical, Gaussian, Net, Params, init_mlp, init_policy, mlp, optimised, policy, q_values
from toolkit.types import Metrics, Rollout

SAMPLES = 4  # actions of the policy that stand for V(s) = E Q(s, a), where there are too many to sum over


class ActorState(NamedTuple):
    """The policy of one seed, without a critic."""

    pi: Net


class VState(NamedTuple):
    """The policy of one seed and its value of states."""

    V: Net
    pi: Net


class QState(NamedTuple):
    """The policy of one seed and its value of actions."""

    Q: Net
    pi: Net


State: TypeAlias = ActorState | VState | QState


class PolicyGradient(Agent[State]):
    """The policy gradient with a choice of what stands for the advantage (`advantage`).

    L_pi = -E A(s, a) log pi(a | s) - entropy H(pi(s))                   Williams 1992; Sutton et al. 1999

    returns           A = G, the return to go                                         REINFORCE
    returns-baseline  A = G - b, b the mean of G over the rollout
    mc                A = G - V(s),                  V towards G                      V by Monte Carlo
    td                A = r + discount V(s') - V(s), V towards r + discount V(s')     V by temporal differences
    q                 A = Q(s, a) - E Q(s, a'),      Q towards r + discount E Q(s', a'),  a' ~ pi       Q by the same
    gae               A = sum_k (gamma lambda)^k delta_k, delta that of td; V towards A + V(s)
                      (Schulman et al. 2015, arXiv:1506.02438, eq. 16); lambda = 1 is mc, lambda = 0 is td

    Order: A and the critic's targets on the critic as it was; the policy; the critic. On the same rollout the critic
    goes on alone until it has made `critic_updates` steps, each with new targets.
    Reads: pi <- V or Q; V <- V at s'; Q <- Q and pi at s'.
    Ends: nothing follows `terminated`. With a critic, a time limit and the end of the rollout are worth V(s') of what
    truly followed. Without one, a time limit ends the return, and steps whose episode ends after the rollout are left
    out: their return is not known. Rollouts must be as long as the longest episode then. Since it is the long episodes
    that are cut off there, what ends soon counts for more than its share: the gradient is exact only where rollouts end
    with their episodes.
    Deviations: gamma^t before the gradient of step t is left out, as everywhere; b and the normalisation see the row
    itself, which shrinks the gradient by one part in the number of rows; the value of states is fitted to lambda
    returns and not to whole returns as in arXiv:1506.02438, one Adam step after another instead of a trust region.
    The policy is the squashed normal, whose noise is kept, so that the likelihood is that of the action played, or
    for discrete actions a categorical one.
    """

    Config = PolicyGradientConfig
    cfg: PolicyGradientConfig
    offline = False
    discrete = True

    @property
    def noise_dim(self) -> int:
        """Actions that the value of a state is averaged over, where it is."""
        sampled = self.cfg.advantage == "q" and not self.spec.discrete
        return SAMPLES * self.spec.action_dim if sampled else 0

    @property
    def policy_every(self) -> int:
        """Updates on each rollout, of which the first moves the policy."""
        return self.cfg.updates_per_rollout

    def init(self, generator: torch.Generator) -> State:
        """Fresh networks."""
        c, o, a = self.cfg, self.input_dim, self.spec.action_dim
        if self.spec.discrete:
            pi = optimised(init_mlp([o, *c.hidden, a], generator, last_gain=0.01))
        else:
            pi = optimised(init_policy(o, a, c.hidden, generator))
        if c.whole_episodes:
            return ActorState(pi)
        if c.advantage == "q":
            return QState(optimised(init_mlp([o + a, *c.hidden, 1], generator)), pi)
        return VState(optimised(init_mlp([o, *c.hidden, 1], generator)), pi)

    def update(self, st: State, b: Rollout) -> tuple[State, Metrics]:  # type: ignore[override]
        """The policy, then the critic."""
        advantage, weight, y = self.judge(st, b)
        lr_policy = (self.cfg.lr_policy or self.cfg.lr) * b.lr_scale
        pi, m_pi = st.pi.descend(lambda p: self.loss_pi(p, advantage, weight, b), lr_policy)
        st, m_critic = self.fit(st, y, b)
        return st._replace(pi=pi), m_pi | m_critic

    def update_critic(self, st: State, b: Rollout) -> tuple[State, Metrics]:  # type: ignore[override]
        """The critic alone."""
        return self.fit(st, self.judge(st, b)[2], b)

    def judge(self, st: State, b: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Advantage, weight of each step in the policy's loss, and the critic's target, (T, N) each."""
        weight = torch.ones_like(b.reward)
        if isinstance(st, ActorState):
            goes_on = 1.0 - b.last
            advantage = y = backward_sum(b.reward, b.discount * goes_on)
            weight = backward_sum(b.last, goes_on)  # 1 where the episode ends within the rollout
        elif isinstance(st, QState):
            y = b.reward + b.discount * self.value(st, b.next_obs, b.noise)
            advantage = q_values(st.Q.p, b.obs, b.action) - self.value(st, b.obs, b.noise)
        else:
            v, v_next = (mlp(st.V.p, s).squeeze(-1) for s in (b.obs, b.next_obs))
            advantage = lambda_advantage(
                v, v_next, b, {"mc": 1.0, "td": 0.0}.get(self.cfg.advantage, self.cfg.gae_lambda)
            )
            y = advantage + v
        mean = (weight * advantage).sum() / weight.sum().clamp(min=1.0)
        if self.cfg.advantage == "returns-baseline" or self.cfg.normalize:
            advantage = advantage - mean
        if self.cfg.normalize:
            variance = (weight * advantage**2).sum() / weight.sum().clamp(min=1.0)
            advantage = advantage / (variance.sqrt() + 1e-8)
        return advantage, weight, y

    def value(self, st: QState, s: Tensor, noise: Tensor) -> Tensor:
        """E Q(s, a) over the policy's actions, (..., O) -> (...): all of them, or `SAMPLES`."""
        A, s_each = self.spec.action_dim, s.unsqueeze(-2)
        if self.spec.discrete:
            a = torch.eye(A, device=s.device).expand(*s.shape[:-1], A, A)
            share = F.softmax(mlp(st.pi.p, s), -1)
        else:
            a = policy(st.pi.p, s_each).draw(noise.unflatten(-1, (SAMPLES, A)))
            share = torch.full_like(a[..., 0], 1.0 / SAMPLES)
        return (share * q_values(st.Q.p, s_each.expand(*a.shape[:-1], s.shape[-1]), a)).sum(-1)

    def loss_pi(self, p: Params, advantage: Tensor, weight: Tensor, b: Rollout) -> tuple[Tensor, Metrics]:
        """Make the actions played likelier by their advantage."""
        dist = self.dist(p, b.obs)
        log_prob = dist.played(b.action, b.action_noise)
        entropy = dist.entropy(b.action_noise).mean()
        used = weight.sum().clamp(min=1.0)
        loss = -(weight * advantage * log_prob).sum() / used - self.cfg.entropy * entropy
        spread = ((weight * advantage**2).sum() / used).sqrt()
        return loss, {"loss/pi": loss.detach(), "entropy": entropy.detach(), "advantage_rms": spread}

    def fit(self, st: State, y: Tensor, b: Rollout) -> tuple[State, Metrics]:
        """One step towards the targets; nothing where there is no critic."""
        if isinstance(st, ActorState):
            return st, {}
        critic = st.Q if isinstance(st, QState) else st.V
        critic, metrics = critic.descend(lambda p: self.loss_critic(p, y, b), self.cfg.lr * b.lr_scale)
        return (st._replace(Q=critic) if isinstance(st, QState) else st._replace(V=critic)), metrics

    def loss_critic(self, p: Params, y: Tensor, b: Rollout) -> tuple[Tensor, Metrics]:
        """Squared distance to the targets."""
        name = "Q" if self.cfg.advantage == "q" else "V"
        value = q_values(p, b.obs, b.action) if name == "Q" else mlp(p, b.obs).squeeze(-1)
        loss = ((value - y) ** 2).mean()
        return loss, {f"loss/{name}": loss.detach(), name.lower(): value.mean().detach()}

    def dist(self, p: Params, s: Tensor) -> Gaussian | Categorical:
        """The policy's distribution at `s`."""
        return Categorical(mlp(p, s)) if self.spec.discrete else policy(p, s)

    def act(self, st: State, obs: Tensor, noise: Tensor) -> Tensor:
        """Squashed normal sample, or a one-hot choice; greedy with zero noise."""
        return self.dist(st.pi.p, obs).draw(noise)

    def q(self, st: State, obs: Tensor, action: Tensor) -> Tensor:
        """Q; of a critic of states V, whatever the action; NaN without a critic."""
        if isinstance(st, QState):
            return q_values(st.Q.p, obs, action)
        return mlp(st.V.p, obs).squeeze(-1) if isinstance(st, VState) else Agent.q(self, st, obs, action)


def lambda_advantage(v: Tensor, v_next: Tensor, b: Rollout, decay: float) -> Tensor:
    """Generalised advantages, (T, N): one-step TD errors, `decay` (lambda) of each following one of the episode."""
    return backward_sum(b.reward + b.discount * v_next - v, decay * b.discount * (1.0 - b.last))


def backward_sum(x: Tensor, share: Tensor) -> Tensor:
    """y_t = x_t + share_t y_{t+1} with y_T = 0, (T, N): doubling the reach of each step, log2 T times."""
    reach = 1
    while reach < len(x):
        x = x + share * F.pad(x[reach:], (0, 0, 0, reach))
        share = share * F.pad(share[reach:], (0, 0, 0, reach))
        reach *= 2
    return x


class Reinforce(PolicyGradient):
    """Rung 1: the return itself."""

    Config = ReinforceConfig
    summary = "on-policy; the plainest policy gradient, of high variance; to learn from, not for results"


class ReinforceBaseline(PolicyGradient):
    """Rung 2: the return against the mean one."""

    Config = ReinforceBaselineConfig
    summary = "on-policy; REINFORCE against the mean return: the same gradient with less variance"


class ActorCriticMC(PolicyGradient):
    """Rung 3: the return against V fitted to returns."""

    Config = ActorCriticMCConfig
    summary = "on-policy; actor-critic whose V learns from whole returns: no bias, more variance"


class ActorCriticTD(PolicyGradient):
    """Rung 4: one step against V fitted to one step and V."""

    Config = ActorCriticTDConfig
    summary = "on-policy; actor-critic whose V learns from itself one step on: biased, less variance"


class ActorCriticQ(PolicyGradient):
    """Rung 5: Q fitted to one step and Q."""

    Config = ActorCriticQConfig
    summary = "on-policy; actor-critic with Q by temporal differences: the step to SAC"


class GAE(PolicyGradient):
    """Rung 6: between Monte Carlo and one step."""

    summary = "on-policy; between whole returns and one step by gae_lambda: the one of these to use"
