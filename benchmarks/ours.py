"""What is measured of this toolkit: the same loops and samplers that a pipeline runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from worker import ACTION, BATCH, EPISODE, GAMMA, HIDDEN, OBS, ROWS, Run, serve

from toolkit.agents import AGENTS, Agent
from toolkit.data.replay import Goals, Normalizer, Relabel, Replay, Sampler
from toolkit.learner import Learner
from toolkit.tasks import EnvPool, load_card, make_env
from toolkit.train import Hooks, OfflinePlan, OnlinePlan, Practice, offline_loop, online_loop
from toolkit.types import Episodes, Spec

UPDATES = 32  # drawn or made at a time
GOAL = 3


def recording(obs: int = OBS, action: int = ACTION, goal: int = 0, episode: int = EPISODE) -> Replay:
    """ROWS random transitions in episodes of equal length."""
    rng = np.random.Generator(np.random.SFC64(0))
    starts = np.arange(ROWS // episode + 1) * (episode + 1)
    R = int(starts[-1])
    normal = lambda width: rng.standard_normal((R, width), np.float32)  # noqa: E731
    truncated = np.zeros(R, np.bool_)
    truncated[starts[1:] - 2] = True
    episodes = Episodes(
        normal(obs - goal), normal(goal), normal(goal), np.tanh(normal(action)), normal(1)[:, 0],
        np.zeros(R, np.bool_), truncated, starts,
    )  # fmt: skip
    return Replay.from_episodes(episodes, np.concatenate([episodes.obs, episodes.desired], 1), GAMMA)


def agent(name: str, spec: Spec) -> Agent[Any]:
    kind = AGENTS[name]
    return kind(kind.Config(hidden=HIDDEN), spec)


def offline(name: str, seeds: int) -> Run:
    """Seed-updates of the offline loop, sampling included."""
    data = recording()
    learner = Learner(agent(name, data.spec), list(range(seeds)), updates=1_000_000)
    unscaled = Normalizer(np.zeros(OBS, np.float32), np.ones(OBS, np.float32))
    done = 1

    def run() -> float:
        nonlocal done
        plan = OfflinePlan(
            updates=done + UPDATES,
            batch_size=BATCH,
            n_step=1,
            gamma=GAMMA,
            lr_schedule="constant",
            log_every=1000,
            eval_every=1 << 40,
        )
        offline_loop(learner, data, unscaled, plan, Hooks(), begin=done)
        done += UPDATES
        return UPDATES * seeds

    return run


def online(seeds: int) -> Run:
    """Environment steps of SAC in the medium maze, all seeds together, one update a step."""
    card = load_card("pointmaze-medium")
    pool = EnvPool(card, seeds)
    sac = agent("sac", make_env(card).sizes)
    ring = Replay.ring(sac.spec, pool.achieved.shape[1], seeds, envs=1, capacity=ROWS // seeds)
    O = sac.spec.obs_dim  # noqa: E741
    unscaled = Normalizer(np.zeros(O, np.float32), np.ones(O, np.float32))
    practice = Practice(pool, unscaled, list(range(seeds)))
    learner = Learner(sac, practice.seeds, updates=1_000_000)

    def run() -> float:
        plan = OnlinePlan(
            env_steps=practice.env_step + 100,
            utd=1,
            warmup_steps=100,
            critic_steps=0,
            batch_size=BATCH,
            n_step=1,
            gamma=GAMMA,
            lr_schedule="constant",
            log_every=1000,
            eval_steps=(),
            offline_share=lambda step, rows: 0.0,
        )
        online_loop(learner, None, practice, ring, plan, Hooks())
        return 100 * seeds

    run()
    return run


def sampling(offline_rows: int = BATCH, goals: bool = False) -> Run:
    """Batches drawn for one seed; the rows that are not `offline_rows` come from a full ring of the same size."""
    if goals:  # the sizes of FetchPickAndPlace, as the peer has
        offline, online = recording(25 + GOAL, 4, GOAL, episode=50), None
    else:
        offline, online = recording(), None if offline_rows == BATCH else recording()
    if online is not None:
        online.streams_per_seed = 1  # a ring of one environment
    relabel = Relabel(Goals(own=0.2, future=0.8), radius=0.05, step_reward=-1.0, goal_reward=0.0) if goals else None
    sampler = Sampler(offline.spec, np.array([0]), BATCH, 0, 1, GAMMA, UPDATES, relabel)
    rows, step = np.full(UPDATES, offline_rows), 0

    def run() -> float:
        nonlocal step
        sampler.draw(step, offline, online, rows)
        step += UPDATES
        return UPDATES

    return run


WORKLOADS: dict[str, Callable[[], Run]] = {
    "iql_1_seed": lambda: offline("iql", 1),
    "iql_5_seeds": lambda: offline("iql", 5),
    "iql_10_seeds": lambda: offline("iql", 10),
    "cql_1_seed": lambda: offline("cql", 1),
    "sac_1_seed": lambda: online(1),
    "sac_5_seeds": lambda: online(5),
    "uniform_sampling": sampling,
    "mixed_sampling": lambda: sampling(offline_rows=BATCH // 2),
    "goal_sampling": lambda: sampling(goals=True),
}

if __name__ == "__main__":
    settle = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    serve(WORKLOADS, ("torch", "numpy", "numba", "gymnasium", "mujoco"), settle)
