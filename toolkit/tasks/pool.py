"""Several environments of one task, stepped together in this process, with plain arrays in and out."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.tasks.card import TaskCard
from toolkit.tasks.env import TaskEnv, make_env
from toolkit.types import BoolArray, FloatArray, IntArray, Observation, ToolkitError

_COMPILED = 8  # mazes kept
_PROBE = 20  # steps by which a simulator is timed
_compiled: dict[str, TaskEnv] = {}


def unseen_env(card: TaskCard) -> TaskEnv:
    """An environment for numbers alone, which may not be able to render: this process compiles a maze only once."""
    if not card.in_maze:
        return make_env(card)
    key = card.model_dump_json()
    if key not in _compiled:
        if len(_compiled) == _COMPILED:
            del _compiled[next(iter(_compiled))]
        _compiled[key] = make_env(card)
    return _compiled[key].twin()


def try_out(card: TaskCard) -> None:
    """Begin the same episode twice and take a step; ToolkitError for a simulator with which nothing can be learned."""
    who = f"task {card.name}: {card.env_id}"
    with contextlib.closing(make_env(card)) as env:
        try:
            first, again = (env.reset(seed=0)[0] for _ in range(2))
            then, reward, *_ = env.step(np.zeros(env.actions.dim, np.float32))
        except ToolkitError:
            raise
        except Exception as error:
            raise ToolkitError(f"{who} fails when it is tried out: {type(error).__name__}: {error}") from error
    for name, space in env.observation_space.items():
        for rows in (first[name], then[name]):
            if rows.shape != space.shape or not np.isfinite(rows).all():
                raise ToolkitError(f"{who}: {name}: expected finite numbers of shape {space.shape}, got {rows}")
        if (first[name] != again[name]).any():
            raise ToolkitError(f"{who}: reset(seed=0) gives another {name} each time; expected the same")
    if not np.isfinite(reward):
        raise ToolkitError(f"{who}: expected a finite reward, got {reward}")


def step_seconds(card: TaskCard) -> float:
    """What a step takes in one simulator: an ant's as long as eight of a ball's."""
    env = unseen_env(card)
    still = np.zeros(env.sizes.action_dim, np.float32)
    env.reset(seed=0)
    begun = time.perf_counter()
    for _ in range(_PROBE):
        *_, terminated, truncated, _ = env.step(still)
        if terminated or truncated:
            env.reset(seed=0)
    return (time.perf_counter() - begun) / _PROBE


def episode_seed(seed: int, lane: int, episode: int) -> int:
    """For `EnvPool.reset`: a run's seed (below 2^33), its lane (below 2^17) and the count have bits of their own."""
    return (lane >> 6) << 53 | (episode >> 14) << 64 | seed << 20 | (lane & 63) << 14 | episode & 0x3FFF


class EnvPool:
    """N environments of one card. Nothing resets by itself: call `reset` for a lane that ended, with its own seed.

    The arrays below are written in place by `reset` and `step`; copy what must outlive the next call.
    """

    def __init__(self, card: TaskCard, n: int) -> None:
        first = unseen_env(card)
        self.card = card
        self.envs = [first] + [first.twin() for _ in range(n - 1)]
        sizes = first.sizes
        self.action_dim = sizes.action_dim
        goal, state = first.achieved_dim, sizes.obs_dim - sizes.goal_dim
        self._goals = goal > 0
        self.observation: FloatArray = np.zeros((n, state), np.float32)  # (N, D) the state without the goal
        self.achieved: FloatArray = np.zeros((n, goal), np.float32)  # (N, G) G is 0 where the task has no goal
        self.desired: FloatArray = np.zeros((n, goal), np.float32)  # (N, G)
        self.inputs: FloatArray = np.zeros((n, sizes.obs_dim), np.float32)  # (N, O) what a policy sees
        self.reward: FloatArray = np.zeros(n, np.float32)  # (N,)
        self.terminated: BoolArray = np.zeros(n, np.bool_)  # (N,)
        self.truncated: BoolArray = np.zeros(n, np.bool_)  # (N,)
        self.is_success: FloatArray = np.zeros(n, np.float32)  # (N,) 1 or 0; NaN where the task does not say
        self.total: npt.NDArray[np.float64] = np.zeros(n)  # (N,) rewards of the running episode
        self.steps: IntArray = np.zeros(n, np.int64)  # (N,) taken in the running episode

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, lane: int, seed: int, options: dict[str, Any] | None = None) -> None:
        """Start a new episode in one lane; seed and options determine it."""
        observation, info = self.envs[lane].reset(seed=seed, options=options)
        self._store(lane, observation)
        if self._goals:
            self.desired[lane] = observation["desired_goal"]
        if self.card.goal.observed:
            self.inputs[lane, self.observation.shape[1] :] = self.desired[lane]
        self.reward[lane] = self.total[lane] = 0.0
        self.terminated[lane] = self.truncated[lane] = False
        self.is_success[lane] = info["is_success"]
        self.steps[lane] = 0

    def step(self, actions: FloatArray, active: BoolArray | None = None) -> None:
        """Step every lane, or those where `active` (N,) is true, with actions (N, A); other lanes keep their rows."""
        lanes = range(len(self.envs)) if active is None else np.flatnonzero(active).tolist()
        for lane in lanes:
            observation, reward, terminated, truncated, info = self.envs[lane].step(actions[lane])
            self._store(lane, observation)
            self.reward[lane] = reward
            self.terminated[lane] = terminated
            self.truncated[lane] = truncated
            self.is_success[lane] = info["is_success"]
            self.steps[lane] += 1
        played = slice(None) if active is None else active
        self.total[played] += self.reward[played]

    def close(self) -> None:
        """Free the simulators."""
        for env in self.envs:
            env.close()

    def _store(self, lane: int, observation: Observation) -> None:
        state = observation["observation"]
        self.observation[lane] = state
        if self._goals:
            self.achieved[lane] = observation["achieved_goal"]
        self.inputs[lane, : len(state)] = state
