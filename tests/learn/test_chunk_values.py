"""A backup over chunks is right whoever acted, where one over n steps is not: on a line whose values are solved for."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from toolkit.data.replay import Replay, Sampler, unpack
from toolkit.pipeline.material import make_agent
from toolkit.types import Episodes, Spec

K, H, GAMMA = 5, 3, 0.9  # states in a row, actions in a chunk
LEFT, RIGHT = 0, 1
RNG = np.random.default_rng(0)
REWARD = RNG.uniform(0.0, 1.0, (K, 2)) + np.array([0.0, 1.0])
POLICY = RNG.integers(0, 2, (K, H))  # the chunk that is judged in each state
GOES_ON = np.array([1.0, 1.0, 1.0, 1.0, 0.5])  # chance that the task does not end with a step from there

Floats = npt.NDArray[np.float64]


def move(state: int, action: int) -> int:
    return int(np.clip(state + (1 if action == RIGHT else -1), 0, K - 1))


def play(state: int, actions: Any) -> tuple[float, float, int]:
    """Expected discounted reward of some actions, what discounts the value after them, and where they lead."""
    reward, discount = 0.0, 1.0
    for action in actions:
        reward += discount * REWARD[state, action]
        discount *= GAMMA * GOES_ON[state]
        state = move(state, action)
    return reward, discount, state


def exact(length: int) -> Floats:
    """Q(s, a_1 ... a_length) by enumeration, (K, 2^length): POLICY's first so many actions, again and again, follow."""
    M, b = np.eye(K), np.zeros(K)
    for s in range(K):
        b[s], discount, after = play(s, POLICY[s, :length])
        M[s, after] -= discount
    V = np.linalg.solve(M, b)
    outcomes = [[play(s, chunk) for chunk in itertools.product((LEFT, RIGHT), repeat=length)] for s in range(K)]
    return np.array([[reward + discount * V[after] for reward, discount, after in row] for row in outcomes])


def recording() -> Replay:
    """Episodes of at most 20 steps at random, where POLICY is never asked."""
    rng = np.random.default_rng(1)
    rows: list[tuple[int, float, float, bool, bool]] = []
    starts = [0]
    for _ in range(2000):
        state = int(rng.integers(K))
        for step in range(20):
            action = int(rng.integers(2))
            ends = bool(rng.random() > GOES_ON[state])
            rows.append((state, 2.0 * action - 1.0, REWARD[state, action], ends, not ends and step == 19))
            state = move(state, action)
            if ends:
                break
        rows.append((state, 0.0, 0.0, False, False))
        starts.append(len(rows))
    state, action, reward, terminated, truncated = (np.array(column) for column in zip(*rows, strict=True))
    nothing = np.zeros((len(rows), 0), np.float32)
    number = lambda x: x.astype(np.float32)  # noqa: E731
    obs = np.eye(K, dtype=np.float32)[state]
    flags = (terminated, truncated, np.array(starts))
    return Replay.from_episodes(
        Episodes(obs, nothing, nothing, number(action)[:, None], number(reward), *flags), obs, GAMMA
    )


@pytest.fixture(scope="module")
def data() -> Replay:
    return recording()


def written(table: torch.Tensor) -> dict[str, torch.Tensor]:
    """A policy network that does what the table says, (K, A) of -1 and 1, with hardly any noise."""
    heads = torch.cat([10.0 * table, torch.full_like(table, -10.0)], 1)  # means before the squashing, deviations
    hidden = torch.nn.functional.pad(torch.eye(K), (0, 64 - K))
    return {"w0": hidden, "b0": torch.zeros(64), "w1": hidden.T @ heads, "b1": torch.zeros(heads.shape[1])}


def learned(name: str, data: Replay, length: int, n_step: int, updates: int = 600) -> Floats:
    """Q of all chunks, (K, 2^length), of critics that judge POLICY and saw nothing but the recording."""
    config = {"hidden": (64,), "lr": 1e-2, "polyak": 0.2, "members": 1, "layer_norm": False}
    config |= {"qc": {"chunk": length}, "qc_sac": {"chunk": length, "subset": None}, "fql": {}}[name]
    agent: Any = make_agent(name, config, data.spec)
    table = torch.tensor(2.0 * POLICY[:, :length] - 1.0, dtype=torch.float32)
    agent.act = lambda st, obs, noise: obs @ table
    spec = Spec(K, length)
    sampler = Sampler(spec, np.array([0]), 256, agent.noise_dim, n_step, GAMMA, 1, chunk=length)
    state = agent.init(torch.Generator().manual_seed(0))
    if name == "qc_sac":
        state = state._replace(pi=state.pi._replace(p=written(table)))
    for step in range(updates):
        b = unpack(
            sampler.draw(step, data, None, np.array([256]))[0, 0],
            torch.tensor(1.0 - step / updates),
            spec,
            chunk=length,
        )
        state, _ = agent.update_critic(state, b)
    chunks = 2.0 * torch.tensor(list(itertools.product((LEFT, RIGHT), repeat=length))) - 1.0
    obs = torch.eye(K).repeat_interleave(len(chunks), 0)
    with torch.no_grad():
        q = agent.q(state, obs, chunks.repeat(K, 1))
    return np.asarray(q.reshape(K, -1).double().numpy())


@pytest.mark.parametrize("name", ["qc", "qc_sac"])
def test_chunks_have_their_exact_values(data: Replay, name: str) -> None:
    """All 40 of them, those too within which the task may end: to leave out what ended would add up to 2.9."""
    truth = exact(H)
    assert truth.max() - truth.min() > 5.0
    error = np.abs(learned(name, data, H, n_step=H) - truth)
    assert error.max() < 0.5 and error.mean() < 0.15


def test_a_return_over_n_steps_counts_what_others_did(data: Replay) -> None:
    """The same data, the same policy's first actions: right with one step, beside it by 0.4 to 1.5 with three."""
    truth = exact(1)
    np.testing.assert_allclose(learned("fql", data, 1, n_step=1), truth, atol=0.25)
    assert np.abs(learned("fql", data, 1, n_step=H) - truth).max() > 1.0
