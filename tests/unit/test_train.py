"""The loops: which updates move the policy, and that episodes still running teach AWR nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.data.replay import Normalizer, Replay
from toolkit.learner import Learner
from toolkit.nn import Net
from toolkit.pipeline.material import make_agent
from toolkit.tasks import EnvPool, Goal, TaskCard, episode_seed
from toolkit.train import Hooks, OfflinePlan, OnlinePlan, Practice, offline_loop, online_loop
from toolkit.types import Episodes, Spec

CARD = TaskCard(
    name="umaze-test",
    description="A short way around a corner",
    env_id="PointMaze_UMaze-v3",
    env_kwargs={"continuing_task": False},
    max_episode_steps=20,
    goal=Goal(cell=(3, 1)),
)


class Silent(Hooks):
    """Hooks that only remember what was logged."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, set[str]]] = []

    def log(self, step: int, values: dict[str, list[float]]) -> None:
        self.logged.append((step, set(values)))


def learner_of(agent: str, spec: Spec, **config: Any) -> Learner:
    made = make_agent(agent, {"hidden": (8,), **config}, spec)
    return Learner(made, [0], 10, compile="off", precision="fp32", device=torch.device("cpu"))


def test_a_state_comes_to_where_the_learner_is() -> None:
    """As from a checkpoint, which is read into the CPU's memory."""
    agent = make_agent("bc", {"hidden": (8,)}, Spec(3, 2))
    learner = Learner(agent, [0], 10, compile="off", precision="fp32", device=torch.device("meta"))
    learner.state = learner_of("bc", Spec(3, 2)).state
    assert {leaf.device.type for leaf in torch.utils._pytree.tree_leaves(learner.state)} == {"meta"}


def made(net: Net) -> int:
    return int(net.t)


def offline(learner: Learner, updates: int, begin: int = 0) -> Silent:
    rng = np.random.default_rng(0)
    none, flags = np.zeros((11, 0), np.float32), np.zeros(11, bool)
    obs, action = (rng.uniform(-1, 1, (11, size)).astype(np.float32) for size in (3, 2))
    episodes = Episodes(obs, none, none, action, -np.ones(11, np.float32), flags, flags, np.array([0, 11]))
    plan = OfflinePlan(updates, 8, 1, 0.9, "constant", log_every=2, eval_every=updates)
    normalizer, hooks = Normalizer(np.zeros(3, np.float32), np.ones(3, np.float32)), Silent()
    offline_loop(learner, Replay.from_episodes(episodes, obs, 0.9), normalizer, plan, hooks, begin)
    return hooks


@pytest.mark.parametrize(("every", "policy"), [(1, 7), (2, 3), (3, 2)])
def test_offline_the_policy_waits_for_its_turn(every: int, policy: int) -> None:
    learner = learner_of("td3_bc", Spec(3, 2), policy_every=every)
    hooks = offline(learner, 7)
    assert (made(learner.state.Q), made(learner.state.pi)) == (7, policy)
    if every == 2:
        assert all("loss/pi" in names for _, names in hooks.logged)


def test_a_resumed_run_keeps_the_turn() -> None:
    whole, parts = (learner_of("td3_bc", Spec(3, 2)) for _ in range(2))
    offline(whole, 7)
    offline(parts, 3)
    offline(parts, 7, begin=3)
    for x, y in zip(*(torch.utils._pytree.tree_leaves(learner.state) for learner in (whole, parts)), strict=True):
        assert torch.equal(x, y)


def online(agent: str, env_steps: int, utd: float = 1, critic_steps: int = 0, envs: int = 1, **config: Any) -> Learner:
    pool = EnvPool(CARD, envs)
    width = pool.inputs.shape[1]
    learner = learner_of(agent, Spec(width, 2), **config)
    practice = Practice(pool, Normalizer(np.zeros(width, np.float32), np.ones(width, np.float32)), [0])
    ring = Replay.ring(Spec(width, 2), pool.achieved.shape[1], 1, envs, 100)
    plan = OnlinePlan(
        env_steps, utd, warmup_steps=2, critic_steps=critic_steps, batch_size=8, n_step=1, gamma=0.9,
        lr_schedule="constant", log_every=100, eval_steps=(), offline_share=lambda *_: 0.0,
    )  # fmt: skip
    online_loop(learner, None, practice, ring, plan, Silent())
    return learner


@pytest.mark.parametrize(
    ("every", "utd", "critics", "policy"),
    [(1, 1, 8, 8), (1, 3, 24, 8), (2, 1, 8, 4), (2, 3, 24, 8), (4, 3, 24, 6)],
)
def test_online_the_longer_wait_counts(every: int, utd: int, critics: int, policy: int) -> None:
    state = online("td3", 10, utd, policy_every=every).state
    assert (made(state.Q), made(state.pi)) == (critics, policy)


@pytest.mark.parametrize(("every", "policy"), [(1, 5), (2, 2)])
def test_fewer_updates_than_steps(every: int, policy: int) -> None:
    """One for each of five rounds of four environments, of which the first outlasts the warm-up."""
    state = online("td3", 20, 0.25, envs=4, policy_every=every).state
    assert (made(state.Q), made(state.pi)) == (5, policy)


def test_between_one_update_and_two_a_step() -> None:
    """The policy moves once an environment step: eight of ten are behind the warm-up, in rounds of two."""
    state = online("td3", 10, 1.5, envs=2, policy_every=1).state
    assert (made(state.Q), made(state.pi)) == (12, 8)


def test_critics_learn_while_the_policy_stands_still() -> None:
    state = online("iql", 10, critic_steps=6).state
    assert (made(state.V), made(state.Q), made(state.pi)) == (8, 8, 2)


def test_a_first_chunk_must_have_been_played() -> None:
    """Two steps of warm-up; the fifth step is the first that leaves a whole chunk to learn from."""
    state = online("qc", 10, chunk=5, flow_steps=2).state
    assert made(state.Q) == made(state.mu) == 6


def test_awr_learns_online_from_the_first_finished_episode_on() -> None:
    """Episodes take 20 steps: before, no return is known and nothing moves."""
    fresh = learner_of("awr", online("awr", 3).agent.spec).state
    for steps, moved in ((19, False), (30, True)):
        state = online("awr", steps).state
        for net, before in ((state.V, fresh.V), (state.pi, fresh.pi)):
            assert any(not torch.equal(net.p[k], before.p[k]) for k in net.p) == moved


def test_no_two_episodes_share_a_seed() -> None:
    seeds, lanes, episodes = (0, 1, 2_048, 2**31 - 1), (0, 1, 63, 64, 127), (0, 1, 16_383, 16_384)
    drawn = [episode_seed(*which) for which in itertools.product(seeds, lanes, episodes)]
    assert len(set(drawn)) == len(drawn) and min(drawn) == 0
