"""Training on recordings and from a buffer of experience (level 3); `on_policy` has the loop without a buffer.

All that a loop works on is its caller's: saved at a `tick` and started again with it, it comes to the same bits.
Randomness is counter-based in the step, so there are no generators to keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from toolkit.data.random import fill_noise
from toolkit.data.replay import Normalizer, Relabel, Replay, Sampler, push
from toolkit.data.window import Recording
from toolkit.learner import Learner
from toolkit.tasks import Chunks, EnvPool, episode_seed
from toolkit.types import BoolArray, FloatArray, Metrics

Values = dict[str, list[float]]
Saved = tuple[dict[str, Any], dict[str, Any]]  # tensors (a pytree) and JSON
LRSchedule = Literal["constant", "cosine"]

_BLOCK = 32  # updates whose batches are drawn at a time
_ACTION_STREAM = 1 << 40  # added to the seeds of a run for the noise of its behaviour in the simulator


class Hooks:
    """What a loop tells the outside, at points where its state is whole. Here nobody listens."""

    def evaluate(self, learner: Learner, step: int) -> None:
        """Measure the policy; `step` counts this loop's axis."""

    def log(self, step: int, values: Values) -> None:
        """Training metrics, one number for each seed."""

    def tick(self, step: int) -> None:
        """Called often: show progress, save when it is time, stop if asked."""


@dataclass(frozen=True)
class OfflinePlan:
    """How long and how to train on a data set."""

    updates: int
    batch_size: int
    n_step: int
    gamma: float
    lr_schedule: LRSchedule
    log_every: int
    eval_every: int
    relabel: Relabel | None = None


def offline_loop(
    learner: Learner, data: Recording, normalizer: Normalizer, plan: OfflinePlan, hooks: Hooks, begin: int = 0
) -> None:
    """Train all seeds on `data` from gradient step `begin` to `plan.updates`."""
    sampler = _sampler(learner, plan, normalizer, _BLOCK)
    everything = np.full(_BLOCK, plan.batch_size, np.int64)
    if begin == 0:
        hooks.evaluate(learner, 0)
    step, metrics, period = begin, {}, learner.agent.policy_every
    while step < plan.updates:
        # A block ends where something is due, so that a resumed run sees the same blocks' ends.
        due = min(plan.updates, *(step - step % every + every for every in (plan.log_every, plan.eval_every)))
        count = min(_BLOCK, due - step)
        batches = learner.receive(sampler.draw(step, data.at(step), None, everything, count))
        for packed in batches:
            lr, step = lr_scale(plan.lr_schedule, step, plan.updates), step + 1
            metrics = learner.update(packed, lr, critic_only=step % period > 0)
        if step % plan.log_every == 0:
            hooks.log(step, to_values(metrics))
        if step % plan.eval_every == 0 or step == plan.updates:
            hooks.evaluate(learner, step)
        hooks.tick(step)


@dataclass(frozen=True)
class OnlinePlan:
    """How long and how to train in the simulator; steps are per seed."""

    env_steps: int
    utd: float
    warmup_steps: int  # only the simulator runs
    critic_steps: int  # after that, steps in which the policy stays as it is and the critics learn to judge it
    batch_size: int
    n_step: int
    gamma: float
    lr_schedule: LRSchedule
    log_every: int
    eval_steps: tuple[int, ...]
    offline_share: Callable[[int, int], float | FloatArray]  # (env_step, online rows) -> share of the batch, () or (S,)
    relabel: Relabel | None = None


class Taken(NamedTuple):
    """One step of K = S * N environments, seed by seed; observations are normalised, `next_obs` is before a reset."""

    obs: FloatArray  # (K, O)
    noise: FloatArray  # (K, act_noise_dim) standard normal numbers the actions were made from
    action: FloatArray  # (K, A)
    reward: FloatArray  # (K,)
    next_obs: FloatArray  # (K, O)
    achieved: FloatArray  # (K, G)
    next_achieved: FloatArray  # (K, G)
    terminated: BoolArray  # (K,)
    truncated: BoolArray  # (K,)


class Memory(Protocol):
    """Where experience is kept for the updates: a ring of transitions, or one rollout."""

    def state(self) -> dict[str, Any]:
        """Arrays that `restore` needs."""

    def restore(self, tensors: dict[str, Any]) -> None:
        """Go back to a saved moment."""


@dataclass
class Practice:
    """The simulator's side of online training: S seeds with N environments each, and what a resume needs of them."""

    pool: EnvPool  # S * N lanes, seed by seed
    normalizer: Normalizer
    seeds: list[int]
    env_step: int = 0
    grad_step: int = 0
    episodes: list[int] = field(default_factory=list)  # episodes begun in each lane
    history: list[list[FloatArray]] = field(default_factory=list)  # actions of each lane's running episode
    recent: list[list[tuple[float, int, float]]] = field(default_factory=list)  # of each seed: return, length, success
    chunks: Chunks = field(init=False)  # what the policy has decided on and not played yet

    @property
    def envs(self) -> int:
        """Environments of one seed."""
        return len(self.pool) // len(self.seeds)

    def begin(self, lane: int, episode: int) -> None:
        """Start an episode; its seed depends on the run's seed, the lane and the count alone."""
        self.pool.reset(lane, episode_seed(self.seeds[lane // self.envs], lane % self.envs, episode))
        self.episodes[lane] = episode + 1
        self.history[lane] = []

    def start(self) -> None:
        """Begin the first episode in every lane."""
        lanes = len(self.pool)
        self.episodes, self.history = [0] * lanes, [[] for _ in range(lanes)]
        self.recent = [[] for _ in self.seeds]
        self.chunks = Chunks(self.pool.action_dim)
        for lane in range(lanes):
            self.begin(lane, 0)

    def state(self) -> Saved:
        """Tensors and JSON that `restore` needs; running episodes are kept as their actions."""
        actions = [np.stack(h) if h else np.zeros((0, 0), np.float32) for h in self.history]
        tensors = {f"history{lane}": a for lane, a in enumerate(actions)}
        if self.chunks.pending is not None:
            tensors["pending"] = self.chunks.pending
        counts = {"env_step": self.env_step, "grad_step": self.grad_step}
        return tensors, counts | {"episodes": self.episodes, "recent": self.recent}

    def restore(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Go back to a saved moment by playing the running episodes again: exact with any simulator."""
        self.start()
        self.env_step, self.grad_step = meta["env_step"], meta["grad_step"]
        self.recent = [[(float(r), int(n), float(s)) for r, n, s in seed] for seed in meta["recent"]]
        if "pending" in tensors:
            self.chunks.pending = np.asarray(tensors["pending"]).copy()
        for lane, begun in enumerate(meta["episodes"]):
            self.begin(lane, begun - 1)
            for action in np.asarray(tensors[f"history{lane}"]):
                alone = np.zeros(len(self.pool), np.bool_)
                alone[lane] = True
                self.pool.step(np.broadcast_to(action, (len(self.pool), len(action))), alone)
                self.history[lane].append(action)

    def step(self, learner: Learner) -> Taken:
        """One step of every environment with the exploring policy; episodes that ended begin anew."""
        pool, S, N = self.pool, len(self.seeds), self.envs
        noise = np.zeros((1, S, N, learner.agent.act_noise_dim), np.float32)
        fill_noise(noise, 0, np.asarray(self.seeds, np.int64) + _ACTION_STREAM, self.env_step)
        obs, achieved = self.normalizer(pool.inputs), pool.achieved.copy()

        def decide() -> FloatArray:
            shape = (S, N, -1)
            action = learner.act(*(torch.from_numpy(x.reshape(shape)).to(learner.device) for x in (obs, noise)))
            decided: FloatArray = action.cpu().numpy().reshape(S * N, -1)
            return decided

        actions = self.chunks.now(pool.steps, decide)
        pool.step(actions)
        taken = Taken(
            obs, noise.reshape(S * N, -1), actions, pool.reward.copy(), self.normalizer(pool.inputs), achieved,
            pool.achieved.copy(), pool.terminated.copy(), pool.truncated.copy(),
        )  # fmt: skip
        self.env_step += N
        for lane in range(S * N):
            self.history[lane].append(actions[lane].copy())
            if pool.terminated[lane] or pool.truncated[lane]:
                self._ended(lane)
        return taken

    def _ended(self, lane: int) -> None:
        pool, recent = self.pool, self.recent[lane // self.envs]
        recent.append((float(pool.total[lane]), int(pool.steps[lane]), float(pool.is_success[lane])))
        del recent[:-20]
        self.begin(lane, self.episodes[lane])


def online_loop(
    learner: Learner, data: Recording | None, practice: Practice, ring: Replay, plan: OnlinePlan, hooks: Hooks
) -> None:
    """Train until `plan.env_steps` environment steps of each seed, with `plan.utd` updates a step from `ring`."""
    N = practice.envs
    updates = round(N * plan.utd)
    period = max(plan.utd, learner.agent.policy_every)  # updates for each one of the policy
    sampler = _sampler(learner, plan, practice.normalizer, updates)
    evals = set(plan.eval_steps)
    if not practice.episodes:
        practice.start()
        hooks.evaluate(learner, 0)
    metrics: Metrics = {}
    ready = False  # whether the ring has what a batch is drawn from, a whole chunk
    while practice.env_step < plan.env_steps:
        t = practice.step(learner)
        store(ring, t, plan.gamma, practice.pool.card.cut_value(plan.gamma))
        step = practice.env_step
        ready = ready or ring.holds(learner.agent.chunk, plan.relabel is None)
        if step > plan.warmup_steps and ready:
            share = plan.offline_share(step, ring.written()) if data is not None else 0.0
            rows = np.empty((updates, len(learner.seeds)), np.int64)
            rows[:] = np.rint(np.multiply(share, plan.batch_size))
            # Numbers far from the offline stage's, so that its batches do not come again.
            recorded = data.at(practice.grad_step) if data is not None else None
            batches = learner.receive(sampler.draw(practice.grad_step + (1 << 32), recorded, ring, rows))
            for packed in batches:
                practice.grad_step += 1
                critic_only = practice.grad_step % period >= 1 or step <= plan.warmup_steps + plan.critic_steps
                metrics = learner.update(packed, lr_scale(plan.lr_schedule, step, plan.env_steps), critic_only)
        if metrics and (step // N) % max(plan.log_every // N, 1) == 0:
            values = to_values(metrics) | {"offline_share": (rows[0] / plan.batch_size).tolist()}
            hooks.log(step, values | recent_means(practice))
        if any(s in evals for s in range(step - N + 1, step + 1)):
            hooks.evaluate(learner, step)
        hooks.tick(step)


def store(ring: Replay, t: Taken, gamma: float, cut_value: float) -> None:
    """Append a step of every environment to the ring that keeps its own."""
    push(
        ring, t.obs, t.action, t.reward, t.next_obs, t.achieved, t.next_achieved, t.terminated, t.truncated, gamma,
        cut_value,
    )  # fmt: skip


def online_state(learner: Learner, practice: Practice, memory: Memory) -> Saved:
    """What a checkpoint holds of online training."""
    tensors, meta = practice.state()
    return {"agent": learner.state, "practice": tensors | memory.state()}, {"step": practice.env_step, "practice": meta}


def _sampler(learner: Learner, plan: OfflinePlan | OnlinePlan, normalizer: Normalizer, updates: int) -> Sampler:
    seeds, agent = np.asarray(learner.seeds, np.int64), learner.agent
    n_step = plan.n_step if agent.chunk == 1 else agent.chunk
    return Sampler(
        agent.spec, seeds, plan.batch_size, agent.noise_dim, n_step, plan.gamma, updates, plan.relabel, normalizer,
        agent.chunk, agent.waypoint_steps,
    )  # fmt: skip


def recent_means(practice: Practice) -> Values:
    """Means over each seed's last 20 episodes; NaN before the first has ended."""
    means = [np.mean(r, axis=0) if r else np.full(3, np.nan) for r in practice.recent]
    names = ("rollout/return", "rollout/steps", "rollout/success")
    return {name: [float(m[i]) for m in means] for i, name in enumerate(names)}


def lr_scale(schedule: LRSchedule, step: int, total: int) -> Tensor:
    """Share of the learning rate at a step of a stage."""
    return torch.tensor(1.0 if schedule == "constant" else 0.5 * (1.0 + math.cos(math.pi * step / total)))


def to_values(metrics: Metrics) -> Values:
    """Metrics as plain numbers, a list over seeds each."""
    return {name: value.reshape(-1).tolist() for name, value in metrics.items()}
