"""Goal-conditioned agents against exact shortest ways: values, waypoints, routes that no recorded piece covers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from traced import begin, traced

from toolkit.agents import AGENTS, Agent
from toolkit.agents.qrl import iqe
from toolkit.types import Batch, Spec

GAMMA = 0.9
# Two corridors joined at the right end only: from one left end to the other the way is long and turns twice.
MAP = ["......", "#####.", "......"]
CELLS = np.array([(y, x) for y, row in enumerate(MAP) for x, cell in enumerate(row) if cell == "."])
N = len(CELLS)
MOVES = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
PIECE = 4  # steps of a recorded piece
Floats, Ints = NDArray[np.float64], NDArray[np.int64]


def _maze() -> Ints:
    """Cell after each of the four moves, (N, 4); a wall stops."""
    index = {tuple(cell): i for i, cell in enumerate(CELLS)}
    return np.array([[index.get(tuple(cell + move), i) for move in MOVES] for i, cell in enumerate(CELLS)])


def shortest(after: Ints) -> Floats:
    """Steps of the shortest way from each state to each other, from the states that follow each, (N, moves)."""
    n = len(after)
    d = np.where(np.eye(n, dtype=bool), 0.0, np.inf)
    for _ in range(n):
        d = np.minimum(d, 1.0 + d[after].min(1))
    return d


AFTER = _maze()
STEPS = shortest(AFTER)
START, GOAL = (x.ravel() for x in np.meshgrid(np.arange(N), np.arange(N), indexing="ij"))  # all pairs
APART = START != GOAL


def place(cells: Ints) -> Tensor:
    """Coordinates of cells around the middle, (..., 2)."""
    return torch.from_numpy((CELLS - [1, 2.5]).astype(np.float32))[torch.from_numpy(cells)]


def join(state: Ints, goal: Ints) -> Tensor:
    return torch.cat([place(state), place(goal)], -1)


def step(cells: Ints, actions: Floats) -> Ints:
    """An action moves along its larger coordinate, (B,), (B, 2) -> (B,)."""
    return np.asarray(AFTER[cells, (actions @ MOVES.T).argmax(-1)])


def train(agent: Agent[Any], updates: int, rows: int) -> Any:
    """Train on random walks of `PIECE` steps, with goals from anywhere in the maze."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (1000, PIECE, 2))
    cells = np.zeros((1000, PIECE + 1), np.int64)
    cells[:, 0] = rng.integers(N, size=1000)
    for t in range(PIECE):
        cells[:, t + 1] = step(cells[:, t], actions[:, t])
    state, change = begin(agent), traced(agent.update)
    for update in range(updates):
        e, t = rng.integers(1000, size=rows), rng.integers(PIECE, size=rows)
        here, there, ahead = cells[e, t], cells[e, t + 1], cells[e, np.minimum(t + agent.waypoint_steps, PIECE)]
        goal, wanted = rng.integers(N, size=(2, rows))
        missed = torch.from_numpy((there != goal).astype(np.float32))
        b = Batch(
            join(here, goal), torch.from_numpy(actions[e, t].astype(np.float32)), -missed, GAMMA * missed,
            join(there, goal), torch.zeros(rows), torch.zeros(rows, 2), join(here, wanted), join(ahead, ahead),
            torch.zeros(rows, 0), torch.tensor(1.0 - update / updates),
        )  # fmt: skip
        state, _ = change(state, b)
    return state


def make(name: str, spec: Spec, **config: Any) -> Agent[Any]:
    kind = AGENTS[name]
    return kind(kind.Config(hidden=(64, 64), lr=3e-3, **config), spec)


def detours(agent: Agent[Any], state: Any) -> Floats:
    """Steps of the greedy policy from every cell to every other, more than the shortest way's; infinite if never."""
    taken = np.full(N * N, np.inf)
    cells = START
    for t in range(30):
        taken[(cells == GOAL) & np.isinf(taken)] = t
        cells = step(cells, agent.act(state, join(cells, GOAL), torch.zeros(N * N, 2)).double().numpy())
    return taken - STEPS[START, GOAL]


def expectile_table(expectile: float) -> Floats:
    """V(s, g) whose expectile over the four equally likely moves is itself, (N, N)."""
    V = np.zeros((N, N))
    for _ in range(2000):
        reached = AFTER[:, :, None] == np.arange(N)
        u = np.where(reached, 0.0, GAMMA * V[AFTER] - 1.0) - V[:, None]
        weight = np.where(u < 0, 1 - expectile, expectile)
        V += (weight * u).sum(1) / weight.sum(1)
    return V


def test_the_table_is_that_of_the_shortest_ways() -> None:
    away = ~np.eye(N, dtype=bool)
    exact = -(1 - GAMMA ** (STEPS - 1)) / (1 - GAMMA)  # the last step pays nothing
    np.testing.assert_allclose(expectile_table(1 - 1e-6)[away], exact[away], atol=1e-3)


@pytest.mark.parametrize("places", [False, True])
def test_hiql_finds_values_waypoints_and_routes(places: bool) -> None:
    spec, options = Spec(4, 2, goal_dim=2, position_dim=2), {"expectile": 0.9, "beta": 10.0, "waypoint_steps": 3}
    agent: Any = make("hiql", spec, polyak=0.05, places=places, **options)
    state = train(agent, 600, rows=256)
    v = agent.q(state, join(START, GOAL), torch.zeros(N * N, 2)).numpy()
    error = np.abs(v - expectile_table(0.9)[START, GOAL])
    assert error.mean() < 0.2 and error.max() < 0.7  # of values down to -7
    proposed = torch.cdist(agent.propose(state, join(START, GOAL)), place(np.arange(N))).argmin(1).numpy()
    nearer = STEPS[proposed, GOAL] < STEPS[START, GOAL]
    assert nearer[APART].mean() > 0.95
    assert (STEPS > PIECE).mean() > 0.4  # of these ways no piece is long enough
    assert (detours(agent, state) == 0).mean() > 0.98


# A ring of one-way streets with two short cuts, and the action that takes each street.
STREETS = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (2, 0), (1, 4)])
TURN = np.array([0, 1, 1, 0, 0, 0, -1, -1], np.float32)
ONE_HOT = torch.eye(6)


@pytest.mark.timeout(300)
def test_qrl_finds_shortest_ways_there_and_back() -> None:
    agent: Any = make("qrl", Spec(12, 1, goal_dim=6), latent_dim=128, far=30.0, slack=0.02)
    rng = np.random.default_rng(0)
    state, change, excess, updates = begin(agent), traced(agent.update), [], 800
    nothing = torch.zeros(64)
    for update in range(updates):
        street = rng.integers(len(STREETS), size=64)
        here, there = (ONE_HOT[STREETS[street, end]] for end in (0, 1))
        goal, wanted = (ONE_HOT[rng.integers(6, size=64)] for _ in range(2))
        b = Batch(
            torch.cat([here, goal], 1), torch.from_numpy(TURN[street])[:, None], nothing, nothing,
            torch.cat([there, goal], 1), nothing, torch.zeros(64, 1), torch.cat([here, wanted], 1),
            torch.cat([there, there], 1), torch.zeros(64, 0), torch.tensor(1.0 - update / updates),
        )  # fmt: skip
        state, metrics = change(state, b)
        excess.append(float(metrics["excess"]))
    s, g = (x.ravel() for x in np.meshgrid(np.arange(6), np.arange(6), indexing="ij"))
    exact = shortest(np.array([STREETS[STREETS[:, 0] == i][[0, -1], 1] for i in range(6)]))[s, g]
    d = agent.distance(state, torch.cat([ONE_HOT[s], ONE_HOT[g]], 1)).numpy()
    # steps may be longer by the root of the slack
    assert np.abs(d - exact).max() < 1.0 and np.abs(d - exact).mean() < 0.5
    assert excess[0] > 1.0 and np.mean(excess[-50:]) < 0.05


def test_a_quasimetric_by_construction() -> None:
    """Whatever the parameters: no way round is shorter, no distance is negative, none from a point to itself."""
    generator = torch.Generator().manual_seed(0)
    for mix in (-3.0, 0.0, 3.0):
        d = {"mix": torch.tensor(mix)}
        x, y, z = torch.randn(3, 5000, 64, generator=generator)
        y = torch.where(torch.rand(5000, 64, generator=generator) < 0.3, x, y)  # ties too
        assert (iqe(d, x, z) <= iqe(d, x, y) + iqe(d, y, z) + 1e-5).all()
        assert (iqe(d, x, y) >= 0).all() and (iqe(d, x, x) == 0).all()
        assert ((iqe(d, x, z) - iqe(d, z, x)).abs() > 0.1).any()
    # intervals 0..2, 1..3 and 5..6 cover 4; an end before its beginning covers nothing
    begin, end = torch.tensor([0.0, 1, 5, 9, 0, 0, 0, 0]), torch.tensor([2.0, 3, 6, 8, 0, 0, 0, 0])
    assert float(iqe({"mix": torch.tensor(0.0)}, begin, end)) == 4.0


def test_qrl_policy_follows_the_model_to_the_goal() -> None:
    """A point that an action moves by a quarter of it, from anywhere to anywhere in a square."""
    agent = make("qrl", Spec(4, 2, goal_dim=2), latent_dim=64, far=30.0)
    rng = np.random.default_rng(0)
    state, change = begin(agent), traced(agent.update)
    updates, nothing = 250, torch.zeros(128)
    for update in range(updates):
        here, action, goal, wanted = torch.from_numpy(rng.uniform(-1, 1, (4, 128, 2)).astype(np.float32))
        there = (here + action / 4).clamp(-1, 1)
        b = Batch(
            torch.cat([here, goal], 1), action, nothing, nothing, torch.cat([there, goal], 1), nothing, 0 * action,
            torch.cat([here, wanted], 1), torch.cat([there, there], 1), torch.zeros(128, 0),
            torch.tensor(1.0 - update / updates),
        )  # fmt: skip
        state, _ = change(state, b)
    at, goal = torch.from_numpy(rng.uniform(-1, 1, (2, 200, 2)).astype(np.float32))
    for _ in range(12):
        at = (at + agent.act(state, torch.cat([at, goal], 1), torch.zeros(200, 2)) / 4).clamp(-1, 1)
    assert ((at - goal).abs().amax(1) < 0.15).float().mean() > 0.95
