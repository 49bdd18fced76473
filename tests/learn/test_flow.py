"""What a flow policy must do and a Gaussian cannot: keep two ways of acting apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from traced import begin, traced

from toolkit.agents import AGENTS, Agent
from toolkit.types import Batch, Spec

MODES, WIDTH = 0.7, 0.08  # actions near -0.7 and near 0.7, half of each


def bandit(agent: Agent[Any], updates: int, reward: float) -> Any:
    """Train on one state with recorded actions of two modes; the upper one pays `reward`, the lower one nothing."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))  # noqa: E731
    state, change = begin(agent), traced(agent.update)
    ones = torch.ones(128, 1)
    for step in range(updates):
        side = torch.where(normal(128, 1) > 0, 1.0, -1.0)
        action = MODES * side + WIDTH * normal(128, 1)
        nothing = torch.zeros(128)
        b = Batch(
            ones, action, reward * (side[:, 0] > 0), nothing, ones, nothing, action, ones, torch.zeros(128, 0),
            normal(128, agent.noise_dim), torch.tensor(1.0 - step / updates),
        )  # fmt: skip
        state, _ = change(state, b)
    return state


def shares(actions: Tensor) -> tuple[float, float, float]:
    """Shares of actions in the lower mode, in the gap between the modes, and in the upper mode."""
    edge = MODES - 4 * WIDTH
    lower, upper = (actions < -edge).float().mean(), (actions > edge).float().mean()
    return float(lower), float(1 - lower - upper), float(upper)


def make(name: str, **config: Any) -> Agent[Any]:
    kind = AGENTS[name]
    return kind(kind.Config(hidden=(64, 64), lr=3e-3, **config), Spec(1, 1))


Z = torch.special.ndtri(torch.linspace(0.001, 0.999, 999))[:, None]
STATES = torch.ones(999, 1)


def test_the_flow_keeps_two_modes_apart_and_a_normal_does_not() -> None:
    agent: Any = make("fql", alpha=1000.0)
    state = bandit(agent, 800, reward=0.0)
    flow = agent.follow(state.flow.p, STATES, Z)
    lower, gap, upper = shares(flow)
    assert lower > 0.42 and upper > 0.42 and gap < 0.1
    # with a strong pull and nothing to gain, one step gives what the flow takes ten for
    one_step = agent.act(state, STATES, Z)
    assert float((one_step - flow).abs().mean()) < 0.05 and shares(one_step)[1] < 0.12
    gaussian = make("bc")
    state = bandit(gaussian, 300, reward=0.0)
    assert shares(gaussian.act(state, STATES, Z))[1] > 0.3


def test_the_critics_choose_among_the_modes() -> None:
    agent: Any = make("fql", alpha=0.1)
    state = bandit(agent, 600, reward=1.0)
    lower, gap, upper = shares(agent.follow(state.flow.p, STATES, Z))
    assert min(lower, upper) > 0.4 and gap < 0.15  # imitation goes on beside it
    assert shares(agent.act(state, STATES, Z))[2] > 0.95
    assert float(agent.act(state, STATES[:1], 0 * Z[:1])) == pytest.approx(MODES, abs=4 * WIDTH)
    q = [float(agent.q(state, STATES[:1], torch.full((1, 1), a))) for a in (MODES, -MODES)]
    assert q == pytest.approx([1.0, 0.0], abs=0.05)


def test_what_was_not_done_is_not_imitated() -> None:
    """Half of the chunks end after their first action, and any number stands for the other two."""
    agent: Any = AGENTS["qc"](AGENTS["qc"].Config(hidden=(64, 64), lr=3e-3, alpha=1000.0, chunk=3), Spec(1, 3))

    def train(taken: bool) -> Tensor:
        rng = np.random.default_rng(0)
        state, change = begin(agent), traced(agent.update)
        ones, nothing = torch.ones(128, 1), torch.zeros(128)
        for step in range(600):
            noise = torch.from_numpy(rng.standard_normal((128, agent.noise_dim), dtype=np.float32))
            action = torch.full((128, 3), MODES)
            action[64:, 1:] = torch.from_numpy(rng.uniform(-1, 1, (64, 2)).astype(np.float32))
            whole = torch.tensor(3.0).repeat(128)
            whole[64:] = 1.0
            b = Batch(
                ones, action, nothing, nothing, ones, nothing, action, ones, torch.zeros(128, 0), noise,
                torch.tensor(1.0 - step / 600), whole if taken else None,
            )  # fmt: skip
            state, _ = change(state, b)
        return (agent.follow(state.flow.p, STATES, torch.cat([Z, Z.flip(0), Z.roll(500, 0)], 1)) - MODES).abs()

    masked, plain = train(True), train(False)
    assert float(masked[:, 0].mean()) < 0.05 and float(plain[:, 0].mean()) < 0.05
    assert float(masked[:, 1:].mean()) < 0.1 < 0.3 < float(plain[:, 1:].mean())
