"""RLPD, WSRL and PEX where they must equal something simpler, and what their parts do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from toolkit.agents import AGENTS
from toolkit.data.replay import Replay, Sampler, push
from toolkit.nn import mlp, optimised, policy
from toolkit.types import Batch, Episodes, Spec

SPEC = Spec(3, 2)


def make(name: str, **config: Any) -> Any:
    kind = AGENTS[name]
    return kind(kind.Config(**({"hidden": (16,)} | config)), SPEC)


def batch(agent: Any, step: int, rows: int = 32) -> Batch:
    random = torch.Generator().manual_seed(step)
    normal = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    obs, none = normal(rows, 3), torch.zeros(rows, 0)
    return Batch(
        obs, torch.tanh(normal(rows, 2)), normal(rows), torch.full((rows,), 0.9), normal(rows, 3), none, none, obs,
        none, normal(rows, agent.noise_dim), torch.tensor(1.0),
    )  # fmt: skip


def same(one: Any, other: Any) -> bool:
    leaves = [pytree.tree_leaves(tree) for tree in (one, other)]
    return all(torch.equal(x, y) for x, y in zip(*leaves, strict=True))


def recording(rng: np.random.Generator) -> Episodes:
    nothing, flags = np.zeros((22, 0), np.float32), np.zeros(22, bool)
    obs, action = (rng.standard_normal((22, n)).astype(np.float32) for n in (3, 2))
    return Episodes(obs, nothing, nothing, action, obs[:, 0], flags, flags, np.array([0, 11, 22]))


def test_rlpd_without_recorded_rows_is_sac_with_its_settings() -> None:
    rng = np.random.default_rng(0)
    episodes = recording(rng)
    data = Replay.from_episodes(episodes, episodes.obs, 0.9)
    ring = Replay.ring(SPEC, 0, 1, 1, 50)
    nothing, no = np.zeros((1, 0), np.float32), np.zeros(1, bool)
    for _ in range(30):
        o, a, n = (rng.standard_normal((1, size)).astype(np.float32) for size in (3, 2, 3))
        push(ring, o, a, o[:, 0], n, nothing, nothing, no, no, 0.9)
    settings = {"members": 10, "subset": 2, "layer_norm": True, "actor_q": "mean", "target_entropy": -1.0}
    rlpd, sac = make("rlpd"), make("sac", **settings)

    def draw(source: Replay | None) -> torch.Tensor:
        return Sampler(SPEC, np.array([5]), 32, rlpd.noise_dim, 1, 0.9, 1).draw(3, source, ring, np.array([0]))

    assert torch.equal(draw(data), draw(None))
    a, b = (agent.init(torch.Generator().manual_seed(0)) for agent in (rlpd, sac))
    assert same(a, b)
    for step in range(5):
        a, b = rlpd.update(a, batch(rlpd, step))[0], sac.update(b, batch(sac, step))[0]
    assert same(a, b)


def test_a_subset_with_replacement_is_sometimes_one_critic() -> None:
    """Two draws of ten meet once in ten times; without replacement never."""
    numbered = {"b0": torch.arange(10.0)}  # each critic's is its number
    counts: dict[str, list[int]] = {"wsrl": [], "rlpd": []}
    for name, found in counts.items():
        agent = make(name)
        smallest = [int(agent.judges(numbered, batch(agent, step, 4))["b0"].min()) for step in range(2000)]
        found += np.bincount(smallest, minlength=10).tolist()
    assert counts["rlpd"][9] == 0
    assert counts["wsrl"][9] == pytest.approx(20, abs=15)  # both draws are the largest: 1 in 100
    assert counts["wsrl"][0] == pytest.approx(2000 * 0.19, abs=80)
    assert counts["rlpd"][0] == pytest.approx(2000 * 0.2, abs=80)


def choosing(slope: float, **config: Any) -> tuple[Any, Any]:
    """PEX whose old policy always takes -1 in both numbers and whose critics add `slope` times the action."""
    agent = make("pex", hidden=(), lr=1e-6, **config)
    state = agent.init(torch.Generator().manual_seed(0))
    old = {k: torch.zeros_like(x) for k, x in state.pi_old.p.items()}
    old["b0"][:2] = -9.0
    Q = {k: torch.zeros_like(x) for k, x in state.Q.p.items()}
    Q["w0"][:, 3:] = slope
    return agent, state._replace(pi_old=optimised(old), Q=optimised(Q), Q_targ=Q)


def test_pex_whose_old_policy_is_never_chosen_is_plain_online_learning() -> None:
    agent, state = choosing(5.0, temperature=1e-3)
    iql = make("iql", hidden=(), lr=1e-6, beta=10.0)
    plain = iql.init(torch.Generator().manual_seed(0))._replace(Q=state.Q, Q_targ=state.Q_targ)
    assert same(plain.pi, state.pi)
    for step in range(5):
        b = batch(agent, step)
        # the policy imitates what it did itself, as weighed by the critics
        own = policy(state.pi.p, b.obs).draw(b.noise[:, :2]).detach()
        assert torch.equal(agent.act(state, b.obs, b.noise), own)
        loss = agent.loss_pi(state.pi.p, state.V.p, None, state, b)[0]
        u = iql.q(plain._replace(Q=optimised(state.Q_targ)), b.obs, own) - mlp(state.V.p, b.obs).squeeze(-1)
        weight = torch.exp(10.0 * u).clamp(max=100.0)
        at_own = -(weight * policy(state.pi.p, b.obs).played(own, b.noise[:, :2])).mean()
        torch.testing.assert_close(loss, at_own)
        state, _ = agent.update(state, b)
        plain, _ = iql.update(plain, b)
        assert same((plain.V, plain.Q, plain.Q_targ), (state.V, state.Q, state.Q_targ))
        plain = plain._replace(pi=state.pi)


def test_pex_does_not_drift_where_no_action_is_better() -> None:
    """A policy that imitates its own samples, all alike, stays as it is; next to the bounds too."""
    agent, state = choosing(5.0, temperature=1e-3, beta=0.0)
    pi = {k: torch.zeros_like(x) for k, x in state.pi.p.items()} | {"b0": torch.tensor([2.0, 2.0, -0.5, -0.5])}
    state = state._replace(pi=optimised(pi))
    noise = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(0))
    b = batch(agent, 0, 1)._replace(policy_obs=torch.zeros(100_000, 3), noise=noise)
    gradient = torch.func.grad(lambda p: agent.loss_pi(p, state.V.p, None, state, b)[0])(pi)["b0"]
    assert gradient.abs().max() < 0.05


def test_pex_keeps_the_old_policy_where_it_is_better() -> None:
    agent, state = choosing(-5.0, temperature=1e-3)
    b = batch(agent, 0)
    assert (agent.act(state, b.obs, b.noise) < -0.99).all()
    state, metrics = agent.update(state, b)
    assert metrics["old_share"] == 1.0


def test_pex_chooses_as_often_as_the_softmax_says() -> None:
    agent, state = choosing(-0.5, temperature=1.0)
    still = optimised({k: torch.zeros_like(x) for k, x in state.pi.p.items()})
    still.p["b0"][2:] = -99.0  # the new policy takes 0 in both numbers, nearly without noise
    state = state._replace(pi=still)
    obs = torch.zeros(20_000, 3)
    noise = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    share = (agent.act(state, obs, noise)[:, 0] < -0.99).float().mean()
    assert float(share) == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.01)  # Q differs by 0.5 (1 + 1)
    assert (agent.act(state, obs[:5], torch.zeros(5, 3)) < -0.99).all(), "greedy takes the larger Q"
