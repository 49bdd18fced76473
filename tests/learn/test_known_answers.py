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


Case = tuple[Episodes, int]  # a recording and the steps its rewards are added up over


def learned(name: str, cases: list[Case], updates: int, **config: Any) -> Learner:
    """All cases in one program, two seeds each, in this order: an update of many costs hardly more than one of two.

    The learning rate falls to zero, which lets the noise of the batches out of the values.
    """
    kind = AGENTS[name]
    known = {field: value for field, value in FAST.items() if field in kind.Config.model_fields}
    agent = kind(kind.Config(**known, **config), Spec(1, 1, discrete=not kind.continuous))
    learner = Learner(agent, [0, 1] * len(cases), updates, compile="off", precision="fp32")
    sources = [
        (
            Replay.from_episodes(episodes, episodes.obs, GAMMA),
            Sampler(Spec(1, 1), np.array([0, 1]), 64, agent.noise_dim, n_step, GAMMA, 1),
        )
        for episodes, n_step in cases
    ]
    for step in range(updates):
        packed = [sampler.draw(step, replay, None, np.array([64]))[0] for replay, sampler in sources]
        learner.update(torch.cat(packed).to(learner.device), torch.tensor(1.0 - step / updates))
    return learner


def learned_q(agent: str, cases: list[Case], updates: int, **config: Any) -> list[float]:
    """The value of each case."""
    learner = learned(agent, cases, updates, **config)
    ones = torch.ones(2 * len(cases), 1, 1, device=learner.device)
    values: list[float] = learner.q(ones, ones * learner.agent.spec.discrete).reshape(len(cases), 2).mean(1).tolist()
    return values


LEFT = 1 / (1 - 0.9 * GAMMA)  # one state, left with probability 1/10 a step: Q = 1 + 0.9 gamma Q


@pytest.mark.parametrize(
    ("agent", "config"),
    [
        ("iql", {"expectile": 0.5}),
        ("sac", {"entropy_backup": False}),
        ("cql", {"alpha": 0.0, "samples": 2}),
        ("fql", {}),
    ],
)
def test_a_time_limit_does_not_end_the_value_and_a_termination_does(agent: str, config: dict[str, Any]) -> None:
    """Reward 1 for ever is worth 1 / (1 - gamma), although every recording stops after ten steps."""
    goes_on, ends = endless("truncated"), endless("terminated")
    one, three, ended = learned_q(agent, [(goes_on, 1), (goes_on, 3), (ends, 1)], 300, **config)
    assert [one, three] == pytest.approx([10.0, 10.0], rel=0.01)
    assert ended == pytest.approx(LEFT, rel=0.12)


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
def test_time_limits_and_terminations(agent: str, config: dict[str, Any]) -> None:
    """Who takes one for the other is wrong by a factor of two."""
    cases = [endless("truncated"), endless("terminated")]
    if agent == "discrete_cql":  # one choice alone
        cases = [replace(episodes, action=np.ones_like(episodes.action)) for episodes in cases]
    values = learned_q(agent, [(episodes, 1) for episodes in cases], 200, **config)
    assert values == pytest.approx([10.0, LEFT], rel=0.12)


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
    config = {"expectile": 0.5} if agent == "ivl" else {}
    learner = learned(agent, [(endless(ending), 1)], 200, **config)
    v = torch.vmap(mlp)(learner.state.V.p, torch.ones(2, 1, 1, device=learner.device))
    assert float(v.mean()) == pytest.approx(value, rel=0.05)


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
