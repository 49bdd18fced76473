"""Recordings of small MDPs, their exact values, and agents trained on all of a recording at once.

A state is a one-hot observation, so that a network without hidden layers is a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from traced import begin, traced

from toolkit.agents import AGENTS, Agent
from toolkit.types import Batch, Spec

Floats = npt.NDArray[np.float64]
Step = tuple[int, tuple[float, ...], float]  # state, action, reward


@dataclass(frozen=True)
class Recording:
    """R transitions over K states."""

    states: int
    state: npt.NDArray[np.int64]  # (R,)
    action: Floats  # (R, A)
    reward: Floats  # (R,)
    next_state: npt.NDArray[np.int64]  # (R,)
    next_action: Floats  # (R, A) zeros after an episode's last transition
    ended: npt.NDArray[np.bool_]  # (R,) the task ended here
    mc_return: Floats  # (R,)
    gamma: float

    def targets(self, V: Floats) -> Floats:
        """r + gamma V(s'), (R,)."""
        return self.reward + self.gamma * np.where(self.ended, 0.0, V[self.next_state])

    def batch(self, agent: Agent[Any], step: int) -> Batch:
        """The whole recording."""
        noise = torch.randn(len(self.state), agent.noise_dim, generator=torch.Generator().manual_seed(step))
        number = lambda x: torch.from_numpy(np.asarray(x, np.float32))  # noqa: E731
        eye = torch.eye(self.states)
        obs = eye[self.state]
        return Batch(
            obs, number(self.action), number(self.reward), number(np.where(self.ended, 0.0, self.gamma)),
            eye[self.next_state], number(self.mc_return), number(self.next_action), obs,
            torch.zeros(len(obs), 0), noise, torch.tensor(1.0),
        )  # fmt: skip


def record(states: int, episodes: list[tuple[list[Step], int, bool]], gamma: float) -> Recording:
    """Episodes are steps, the state after the last one, and whether the task ended there."""
    rows: list[tuple[Any, ...]] = []
    for steps, last, ended in episodes:
        total, following, after = 0.0, last, np.zeros(len(steps[0][1]))
        for i, (s, a, r) in reversed(list(enumerate(steps))):
            total = r + gamma * total
            rows.append((s, a, r, following, after, ended and i == len(steps) - 1, total))
            following, after = s, np.asarray(a)
    s, a, r, t, b, e, g = (np.array(column) for column in zip(*rows, strict=True))
    return Recording(states, s, a, r, t, b, e, g, gamma)


def train(agent: str, data: Recording, updates: int, seed: int = 0, **config: Any) -> tuple[Agent[Any], Any]:
    """The agent and its state after `updates` of the whole recording."""
    kind = AGENTS[agent]
    made = kind(kind.Config(**config), Spec(data.states, data.action.shape[1]))
    state, whole, critics = begin(made, seed), traced(made.update), traced(made.update_critic)
    for step in range(updates):
        change = whole if (step + 1) % made.policy_every == 0 else critics
        state, _ = change(state, data.batch(made, step))
    return made, state


def expectile_of(y: Floats, expectile: float) -> float:
    """The v at which the weighted residuals cancel, by fixed point."""
    v = float(y.mean())
    while True:
        weight = np.where(y > v, expectile, 1.0 - expectile)
        before, v = v, float((weight * y).sum() / weight.sum())
        if abs(v - before) < 1e-12:
            return v


def expectile_values(data: Recording, expectile: float) -> Floats:
    """V(s) = expectile over the recorded transitions of r + gamma V(s'), (K,); expectile 1 is the in-sample optimum."""
    V = np.zeros(data.states)
    for _ in range(300):
        y = data.targets(V)
        for s in np.unique(data.state):
            here = y[data.state == s]
            V[s] = here.max() if expectile == 1.0 else expectile_of(here, expectile)
    return V


def behaviour_values(data: Recording) -> Floats:
    """V of the recorded behaviour by linear solve, (K,)."""
    K = data.states
    counts = np.maximum(np.bincount(data.state, minlength=K), 1)
    P, r = np.zeros((K, K)), np.bincount(data.state, data.reward, K) / counts
    np.add.at(P, (data.state, data.next_state), ~data.ended / counts[data.state])
    solved: Floats = np.linalg.solve(np.eye(K) - data.gamma * P, r)
    return solved
