"""Fitted Q evaluation against the exact values of a small Markov decision process."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tabular import Floats, Recording
from torch import Tensor
from traced import begin, traced

from toolkit.agents import AGENTS, Agent
from toolkit.agents.configs.base import AgentConfig
from toolkit.fqe import FQE, FQEConfig, estimate
from toolkit.learner import Learner
from toolkit.policy import Policy, describe, policy_tensors
from toolkit.stats import spearman
from toolkit.tasks import load_card
from toolkit.types import Batch, Episodes, Metrics, Spec, ToolkitError

K, A, GAMMA = 4, 2, 0.8
EIGHTHS = 8  # transitions recorded of each state and action


class TableState(NamedTuple):
    choice: Tensor  # (K, A) one-hot


class Table(Agent[TableState]):
    """A policy that is a table."""

    def __init__(self, choice: list[int]) -> None:
        super().__init__(AgentConfig(), Spec(K, A, discrete=True))
        self.choice = torch.eye(A)[choice]

    def init(self, generator: torch.Generator) -> TableState:
        return TableState(self.choice)

    def update(self, st: TableState, b: Batch) -> tuple[TableState, Metrics]:
        return st, {}

    def act(self, st: TableState, obs: Tensor, noise: Tensor) -> Tensor:
        return obs @ st.choice


def problem() -> tuple[Recording, Floats, Floats]:
    """Recording, transition probabilities P (K, A, K) and rewards (K, A): the recorded shares are the probabilities."""
    rng = np.random.default_rng(1)
    counts = rng.multinomial(EIGHTHS, np.full(K, 1 / K), (K, A))
    reward = rng.normal(size=(K, A)).round(1)
    rows = [(s, a, t) for s, a, t in np.ndindex(K, A, K) for _ in range(counts[s, a, t])]
    s, a, t = np.array(rows).T
    none = np.zeros(len(rows))
    data = Recording(K, s, np.eye(A)[a], reward[s, a], t, np.zeros((len(rows), A)), none.astype(bool), none, GAMMA)
    return data, counts / EIGHTHS, reward


def exact(choice: list[int], P: Floats, reward: Floats) -> Floats:
    """Q of a policy by linear solve, (K, A)."""
    here = np.arange(K)
    V = np.linalg.solve(np.eye(K) - GAMMA * P[here, choice], reward[here, choice])
    return reward + GAMMA * P @ V


def fitted(choice: list[int], data: Recording, updates: int = 500) -> Floats:
    agent = FQE(FQEConfig(hidden=(32,), lr=1e-2, polyak=0.1), Table(choice))
    state, change = begin(agent), traced(agent.update)
    batch = data.batch(agent, 0)
    for step in range(updates):
        state, _ = change(state, batch._replace(lr_scale=torch.tensor(1.0 - step / updates)))
    with torch.no_grad():
        q = agent.q(state, torch.eye(K)[:, None].expand(K, A, K), torch.eye(A).expand(K, A, A))
    return np.asarray(q.numpy(), np.float64)


def test_values_and_ranking_are_the_exact_ones() -> None:
    data, P, reward = problem()
    policies = [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]]
    here = np.arange(K)
    ours, truth = [], []
    for choice in policies:
        q, wanted = fitted(choice, data), exact(choice, P, reward)
        assert q == pytest.approx(wanted, abs=0.05 * np.ptp(wanted))
        ours.append(q[here, choice].mean())
        truth.append(wanted[here, choice].mean())
    assert spearman(ours, truth) == pytest.approx(1.0)
    assert np.ptp(truth) > 0.5  # there was something to tell apart


@pytest.mark.parametrize(("its_waves", "waves"), [((), ()), ((3.0,), ()), ((3.0,), (2.0, 5.0))])
def test_a_policy_from_a_checkpoint_on_episodes_that_never_end(
    its_waves: tuple[float, ...], waves: tuple[float, ...]
) -> None:
    """Every step costs 0.5 and a time limit ends no value: -0.5 / (1 - gamma), whatever the policy does and sees."""
    agent = AGENTS["bc"](AGENTS["bc"].Config(hidden=(8,), fourier=its_waves), Spec(4, 2, position_dim=2))
    learner = Learner(agent, [3, 5], 1, compile="off", precision="fp32", device=torch.device("cpu"))
    tensors = policy_tensors(learner.state, np.zeros(4, np.float32), np.ones(4, np.float32))
    policy = Policy(tensors, {"policy": describe("bc", agent, load_card("pointmaze-umaze"), [3, 5])})
    rng, rows = np.random.default_rng(0), 404
    obs, action = (rng.uniform(-1, 1, (rows, size)).astype(np.float32) for size in (4, 2))
    last = np.arange(rows) % 101 == 99
    goal, never = np.zeros((rows, 2), np.float32), np.zeros(rows, bool)
    cost = np.full(rows, -0.5, np.float32)
    episodes = Episodes(obs, obs[:, :2], goal, action, cost, never, last, np.arange(0, 405, 101))
    config = FQEConfig(hidden=(32,), lr=1e-2, polyak=0.1, fourier=waves)
    found = estimate(policy, episodes, gamma=0.5, updates=300, batch_size=64, config=config)
    assert found == pytest.approx([-1.0, -1.0], abs=0.08)
    with pytest.raises(ToolkitError, match="expected 4 and 2, as in task pointmaze-umaze"):
        estimate(policy, replace(episodes, action=np.pad(action, ((0, 0), (0, 1)))), gamma=0.5)
