"""Values that can be computed by hand, learned by the whole path from episodes through sampler to agent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.agents import AGENTS
from toolkit.data.replay import Replay, Sampler
from toolkit.learner import Learner
from toolkit.nn import mlp
from toolkit.types import Episodes, Spec

GAMMA = 0.9
FAST = {"hidden": (32,), "lr": 1e-2, "polyak": 0.5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def endless(ending: str) -> Episodes:
    """Ten-step episodes of reward 1 that end by `ending`: "truncated" or "terminated". One state, random actions."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, 50 * 11 + 1, 11)
    rows = int(starts[-1])
    last = starts[1:] - 2
    flags = {"terminated": np.zeros(rows, bool), "truncated": np.zeros(rows, bool)}
    flags[ending][last] = True
    action = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    nothing = np.zeros((rows, 0), np.float32)
    reward = np.ones(rows, np.float32)
    reward[starts[1:] - 1] = 0.0
    return Episodes(np.ones((rows, 1), np.float32), nothing, nothing, action, reward, **flags, starts=starts)


def learned(name: str, episodes: Episodes, n_step: int, updates: int = 800, **config: Any) -> Learner:
    kind = AGENTS[name]
    known = {field: value for field, value in FAST.items() if field in kind.Config.model_fields}
    agent = kind(kind.Config(**known, **config), Spec(1, 1, discrete=not kind.continuous))
    learner = Learner(agent, [0, 1], updates, compile="off", precision="fp32")
    replay = Replay.from_episodes(episodes, episodes.obs, GAMMA)
    sampler = Sampler(replay.spec, np.array([0, 1]), 64, learner.agent.noise_dim, n_step, GAMMA, 1)
    for step in range(updates):
        packed = sampler.draw(step, replay, None, np.array([64]))[0]
        learner.update(packed.to(learner.device), torch.tensor(1.0))
    return learner


def learned_q(agent: str, episodes: Episodes, n_step: int, **config: Any) -> float:
    learner = learned(agent, episodes, n_step, **config)
    ones = torch.ones(2, 1, 1, device=learner.device)
    return float(learner.q(ones, ones * learner.agent.spec.discrete).mean())


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("agent", "config"),
    [
        ("iql", {"expectile": 0.5}),
        ("sac", {"entropy_backup": False}),
        ("cql", {"alpha": 0.0, "samples": 2}),
        ("fql", {}),
    ],
)
def test_a_time_limit_does_not_end_the_value(agent: str, config: dict[str, Any], n_step: int) -> None:
    """Reward 1 for ever is worth 1 / (1 - gamma), although every recording stops after ten steps."""
    assert learned_q(agent, endless("truncated"), n_step, **config) == pytest.approx(10.0, rel=0.03)


LEFT = 1 / (1 - 0.9 * GAMMA)  # one state, left with probability 1/10 a step: Q = 1 + 0.9 gamma Q


@pytest.mark.parametrize(("ending", "value"), [("truncated", 10.0), ("terminated", LEFT)])
@pytest.mark.parametrize(
    ("agent", "config"),
    [
        ("awac", {}),
        ("td3", {}),
        ("td3_bc", {}),
        ("rebrac", {"alpha_critic": 0.0}),
        ("calql", {"alpha": 0.0, "samples": 2}),
        ("rlpd", {"members": 4, "entropy_backup": False}),
        ("wsrl", {"members": 4}),
        ("pex", {"expectile": 0.5}),
        ("discrete_cql", {"alpha": 0.0}),
    ],
)
def test_time_limits_and_terminations(agent: str, config: dict[str, Any], ending: str, value: float) -> None:
    """A time limit ends no value and a termination does: who takes one for the other is wrong by a factor of two."""
    episodes = endless(ending)
    if agent == "discrete_cql":  # one choice alone
        episodes = replace(episodes, action=np.ones_like(episodes.action))
    assert learned_q(agent, episodes, n_step=1, updates=400, **config) == pytest.approx(value, rel=0.12)


@pytest.mark.parametrize(
    ("agent", "config"),
    [("sac", {"entropy_backup": False}), ("cql", {"alpha": 0.0, "samples": 2}), ("fql", {})],
)
def test_a_termination_ends_the_value(agent: str, config: dict[str, Any]) -> None:
    """The other half of `test_a_time_limit_does_not_end_the_value`; IQL's stands below."""
    assert learned_q(agent, endless("terminated"), n_step=1, updates=400, **config) == pytest.approx(LEFT, rel=0.12)


@pytest.mark.parametrize(
    ("agent", "ending", "value"),
    [
        ("ivl", "truncated", 10.0),
        ("ivl", "terminated", LEFT),
        # a return ends where the recording ends: the mean over the steps left of (1 - gamma^left) / (1 - gamma)
        ("awr", "truncated", float(np.mean((1 - GAMMA ** np.arange(1, 11)) / (1 - GAMMA)))),
    ],
)
def test_values_of_states(agent: str, ending: str, value: float) -> None:
    learner = learned(agent, endless(ending), n_step=1, updates=400, **({"expectile": 0.5} if agent == "ivl" else {}))
    v = torch.vmap(mlp)(learner.state.V.p, torch.ones(2, 1, 1, device=learner.device))
    assert float(v.mean()) == pytest.approx(value, rel=0.05)


def test_a_termination_does() -> None:
    """The negative case: a value of 1 / (1 - 0.9 gamma) and not 10."""
    got = learned_q("iql", endless("terminated"), n_step=1, expectile=0.5)
    assert got == pytest.approx(LEFT, rel=0.12)


def test_expectile_closed_form() -> None:
    """The expectile of a two-point distribution: 0 and 1 equally likely gives v = expectile."""
    from toolkit.agents.iql import expectile_loss

    q = torch.tensor([0.0, 1.0])
    for expectile in (0.5, 0.7, 0.9, 0.99):
        grid = torch.linspace(0, 1, 10_001)
        loss = expectile_loss(q[None] - grid[:, None], expectile).mean(1)
        assert float(grid[loss.argmin()]) == pytest.approx(expectile, abs=1e-3)


def test_half_an_expectile_is_least_squares_to_the_last_bit() -> None:
    from toolkit.agents.iql import expectile_loss

    u = torch.linspace(-3, 3, 101)
    assert torch.equal(expectile_loss(u, 0.5), 0.5 * u * u)
