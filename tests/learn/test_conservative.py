"""Discrete CQL against exact values and double DQN, Cal-QL against CQL and recorded returns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils import _pytree as pytree
from traced import begin, traced

from toolkit.agents import AGENTS
from toolkit.types import NO_RETURN, Batch, Spec

GAMMA, STATES, ACTIONS = 0.9, 5, 3
# Action 0 leads back, 1 forward to the goal behind states 3 and 4; 2 jumps, and is never recorded.
NEXT = np.array([[0, 1, 2], [0, 2, 3], [1, 3, 4], [2, 4, 0], [3, 4, 1]])
DONE = np.zeros((STATES, ACTIONS), bool)
DONE[3:, 1] = True
REWARD = np.where(DONE, 0.0, -1.0)


def exact_q(choice: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Q of always taking `choice` (K,) afterwards, by linear solve, (K, A)."""
    P = np.zeros((STATES * ACTIONS, STATES * ACTIONS))
    for s, a in np.argwhere(~DONE):
        then = NEXT[s, a]
        P[s * ACTIONS + a, then * ACTIONS + choice[then]] = GAMMA
    solved: npt.NDArray[np.float64] = np.linalg.solve(np.eye(len(P)) - P, REWARD.reshape(-1))
    return solved.reshape(STATES, ACTIONS)


def recorded() -> Batch:
    """Every state with actions 0 and 1, once each."""
    s, a = (x.reshape(-1) for x in np.mgrid[:STATES, :2])
    row = lambda size, index: torch.eye(size)[torch.from_numpy(index)]  # noqa: E731
    number = lambda x: torch.from_numpy(np.asarray(x, np.float32))  # noqa: E731
    obs, none = row(STATES, s), torch.zeros(len(s), 0)
    return Batch(
        obs, row(ACTIONS, a), number(REWARD[s, a]), number(np.where(DONE[s, a], 0.0, GAMMA)),
        row(STATES, NEXT[s, a]), torch.zeros(len(s)), none, obs, none, none, torch.tensor(1.0),
    )  # fmt: skip


def table(alpha: float, updates: int = 1500) -> npt.NDArray[np.float32]:
    """Q that discrete CQL learns, (K, A)."""
    kind = AGENTS["discrete_cql"]
    agent = kind(kind.Config(hidden=(), lr=2e-2, polyak=0.2, alpha=alpha), Spec(STATES, ACTIONS, discrete=True))
    state, change, b = begin(agent), traced(agent.update), recorded()
    for _ in range(updates):
        state, _ = change(state, b)
    return np.asarray((state.Q.p["w0"] + state.Q.p["b0"].unsqueeze(1))[0])


def test_unseen_actions_lie_below_their_exact_values_the_more_the_larger_alpha() -> None:
    gaps = []
    for alpha in (0.05, 0.2, 1.0):
        q = table(alpha)
        assert (q.argmax(1) == 1).all(), "forward is right in every state"
        gaps.append((exact_q(q.argmax(1)) - q)[:, 2])
    assert (gaps[0] > 1.0).all()
    assert (np.diff(gaps, axis=0) > 0).all()


def test_without_the_penalty_an_unseen_action_seems_the_best() -> None:
    """The negative case: nothing speaks against what was never tried."""
    q = table(0.0)
    chosen = q.argmax(1)
    assert (chosen[:3] == 2).any()
    s = int(np.flatnonzero(chosen == 2)[0])
    assert q[s, 2] > exact_q(chosen)[s, 2]


def test_alpha_0_is_double_dqn() -> None:
    """Against a second implementation: torch's own Adam on the textbook's loss."""
    kind = AGENTS["discrete_cql"]
    agent = kind(kind.Config(hidden=(), lr=1e-2, polyak=0.1, alpha=0.0), Spec(STATES, ACTIONS, discrete=True))
    state, b = agent.init(torch.Generator().manual_seed(1)), recorded()
    w = {k: x[0].clone().requires_grad_() for k, x in state.Q.p.items()}
    target = {k: x.detach().clone() for k, x in w.items()}
    optimiser = torch.optim.Adam(w.values(), lr=1e-2)
    net = lambda p, s: s @ p["w0"] + p["b0"]  # noqa: E731
    for _ in range(20):
        with torch.no_grad():
            best = net(w, b.next_obs).argmax(1, keepdim=True)
            y = b.reward + b.discount * net(target, b.next_obs).gather(1, best)[:, 0]
        loss = ((net(w, b.obs).gather(1, b.action.argmax(1, keepdim=True))[:, 0] - y) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        target = {k: torch.lerp(x, w[k].detach(), 0.1) for k, x in target.items()}
        state, _ = agent.update(state, b)
    for k, x in w.items():
        torch.testing.assert_close(state.Q.p[k][0], x.detach(), rtol=1e-4, atol=1e-5)


def one_state(agent: Any, step: int, mc_return: float, rows: int = 64) -> Batch:
    """Reward 1 for ever, worth 10; the recorded actions lie in one half of what is possible."""
    random = torch.Generator().manual_seed(step)
    obs, none = torch.ones(rows, 1), torch.zeros(rows, 0)
    return Batch(
        obs, -torch.rand(rows, 1, generator=random), torch.ones(rows), torch.full((rows,), GAMMA), obs,
        torch.full((rows,), mc_return), none, obs, none, torch.randn(rows, agent.noise_dim, generator=random),
        torch.tensor(1.0),
    )  # fmt: skip


def trained(name: str, updates: int, mc_return: float, **config: Any) -> tuple[Any, Any]:
    kind = AGENTS[name]
    agent = kind(kind.Config(**({"hidden": (16,), "samples": 4, "max_backup": True} | config)), Spec(1, 1))
    state = agent.init(torch.Generator().manual_seed(0))
    for step in range(updates):
        state, _ = agent.update(state, one_state(agent, step, mc_return))
    return agent, state


@pytest.mark.parametrize("gap", [None, -1.0])
def test_a_bound_that_binds_nowhere_is_cql_to_the_last_bit(gap: float | None) -> None:
    states = [trained(name, 5, NO_RETURN, gap=gap)[1] for name in ("cql", "calql")]
    for one, other in zip(*map(pytree.tree_leaves, states), strict=True):
        assert torch.equal(one, other)


def test_a_multiplier_at_its_bound_comes_down_again() -> None:
    """The gap lies below what is asked for, so the multiplier has to fall."""
    agent, state = trained("cql", 1, NO_RETURN, gap=100.0)
    state = state._replace(log_penalty=state.log_penalty._replace(p={"log_penalty": torch.tensor(20.0)}))
    for step in range(3):
        state, _ = agent.update(state, one_state(agent, step, NO_RETURN))
    assert state.log_penalty.p["log_penalty"] < math.log(1e6) - 1e-4


def test_the_bound_holds_for_the_policys_actions_alone() -> None:
    kind = AGENTS["calql"]
    agent = kind(kind.Config(samples=2), Spec(1, 1))
    q = torch.tensor([[[-5.0, 3.0, -5.0, 3.0, -5.0, 3.0]]])  # uniform, of pi(s), of pi(s')
    b = one_state(agent, 0, 1.0, rows=1)
    bounded, metrics = agent.bounded(q, b)
    assert bounded.tolist() == [[[-5.0, 3.0, 1.0, 3.0, 1.0, 3.0]]]
    assert metrics["bound_rate"] == 0.5


def test_alpha_0_is_sac_to_the_last_bit() -> None:
    """CQL draws more noise, but the same for what it shares with SAC."""
    cql, sac = (
        AGENTS[name](AGENTS[name].Config(hidden=(16,), entropy_backup=False, lr_policy=None, **more), Spec(1, 1))
        for name, more in [("cql", {"alpha": 0.0}), ("sac", {})]
    )
    ours, theirs = (agent.init(torch.Generator().manual_seed(0)) for agent in (cql, sac))
    for step in range(5):
        b = one_state(cql, step, NO_RETURN)
        ours, _ = cql.update(ours, b)
        theirs, _ = sac.update(theirs, b._replace(noise=b.noise[:, : sac.noise_dim]))
    for name in theirs._fields:
        for one, other in zip(*(pytree.tree_leaves(getattr(state, name)) for state in (ours, theirs)), strict=True):
            assert torch.equal(one, other), name


PAID, WORTH = 1.0, 3.0  # what the recorded actions return, and the policy's


def elsewhere(agent: Any, step: int, rows: int = 64) -> Batch:
    """One step that ends; the recorded actions lie around (-0.8, -0.8) and return 1."""
    random = torch.Generator().manual_seed(step)
    obs, none, zeros = torch.ones(rows, 1), torch.zeros(rows, 0), torch.zeros(rows)
    action = (-0.8 + 0.1 * torch.randn(rows, 2, generator=random)).clamp(-1.0, 1.0)
    noise = torch.randn(rows, agent.noise_dim, generator=random)
    return Batch(obs, action, zeros + PAID, zeros, obs, zeros + PAID, none, obs, none, noise, torch.tensor(1.0))


def believed(name: str) -> float:
    """Q of a policy around (0.8, 0.8) that does not move, after a strong conservative term."""
    kind = AGENTS[name]
    agent = kind(kind.Config(hidden=(32,), lr=1e-2, lr_policy=1e-9, alpha=5.0, samples=8), Spec(1, 2))
    state = agent.init(torch.Generator().manual_seed(0))
    still = {k: torch.zeros_like(x) for k, x in state.pi.p.items()}
    last = max(k for k in still if k.startswith("b"))
    still[last] = torch.tensor([1.1, 1.1, -0.5, -0.5])  # the heads: mean 1.1 before tanh, deviation about 0.2
    state = state._replace(pi=state.pi._replace(p=still))
    for step in range(100):
        state, _ = agent.update(state, elsewhere(agent, step))
    obs, noise = torch.ones(256, 1), torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    action = agent.act(state, obs, noise)
    assert (action > 0.3).all()
    return float(agent.q(state, obs, action).mean())


def test_calql_is_nearer_to_the_true_return_than_cql_and_both_stay_below() -> None:
    """The policy does what was never recorded and earns more than what was."""
    cql, calql = believed("cql"), believed("calql")
    assert cql < calql < WORTH
    assert WORTH - calql < 0.6 * (WORTH - cql), (cql, calql)
