"""What the numba kernels must compute, written the plain way, and data to compute it on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toolkit.data.replay import Goals, Normalizer, Relabel, Replay, push
from toolkit.data.sampler import HEADER, LEFT, RETURN, REWARD, TERMINATED
from toolkit.types import Episodes, FloatArray, Spec

Tail = Any  # what gives action j behind the end of an episode; None where none is asked for
M64, GAMMA = (1 << 64) - 1, 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def stream(seed: int, step: int) -> int:
    return mix((mix((seed * GAMMA + 1) & M64) + step * 0xD1342543DE82EF95) & M64)


def draw(seed: int, step: int, row: int, j: int) -> int:
    return mix((stream(seed, step) + (row * (1 << 20) + j + 1) * GAMMA) & M64)


def unit(bits: int) -> float:
    return (bits >> 40) * 2.0**-24


def below(bits: int, n: int) -> int:
    return ((bits >> 32) * n) >> 32


def make_episodes(lengths: list[int], seed: int = 0, goal: int = 0) -> Episodes:
    """Random episodes; every second one ends by termination, the others by truncation."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    R = int(starts[-1])
    f = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    episodes = Episodes(
        f(R, 3), f(R, goal), f(R, goal), f(R, 2), f(R), np.zeros(R, bool), np.zeros(R, bool), starts.astype(np.int64)
    )
    for e, end in enumerate(starts[1:]):
        episodes.reward[end - 1], episodes.action[end - 1] = 0.0, 0.0
        (episodes.terminated if e % 2 == 0 else episodes.truncated)[end - 2] = True
    return episodes


def reference_left(replay: Replay, k: int, i: int) -> int:
    """Transitions from row (k, i) to the end of its episode or to the newest one."""
    left = int(replay.rows[k, i, LEFT])
    return left if left >= 0 else int(replay.head[k] - i) % replay.rows.shape[1]


def reference_begins(replay: Replay, k: int, i: int, chunk: int, cut: bool = True) -> bool:
    """Whether a chunk can be drawn from row (k, i): it is whole, or the task ends within it."""
    left = reference_left(replay, k, i)
    ends = replay.rows[k, (i + left - 1) % len(replay.rows[k]), TERMINATED] == 1
    return left >= chunk or (cut and left > 0 and bool(ends))


def reference_pick(
    replay: Replay, seed_index: int, seed: int, step: int, b: int, chunk: int = 1, cut: bool = True
) -> tuple[int, int]:
    count = max(replay.streams_per_seed, 1)
    j = 0
    while True:
        bits = draw(seed, step, b, j)
        k = seed_index * replay.streams_per_seed + below(mix(bits ^ 0xBF58476D1CE4E5B9), count)
        i = below(bits, int(replay.size[k]))
        if reference_begins(replay, k, i, chunk, cut):
            return k, i
        j += 1


def reference_tail(replay: Replay, seed_index: int, seed: int, step: int, b: int, j: int) -> FloatArray:
    """What stands for action j of a chunk that the task's end has cut short: any recorded one."""
    bits = draw(seed, step, b, (1 << 18) + j)
    k = seed_index * replay.streams_per_seed + below(mix(bits ^ 0xBF58476D1CE4E5B9), max(replay.streams_per_seed, 1))
    i = below(bits, int(replay.size[k]))
    i = i - 1 if replay.rows[k, i, LEFT] == 0 else i
    action: FloatArray = replay.rows[k, i, -replay.spec.action_dim :]
    return action


def join(
    replay: Replay, k: int, i: int, to: int, reward: float, discount: float, chunk: int, tail: Tail = None
) -> FloatArray:
    """One row of a batch from its parts: transition at i, observation and next action at `to`."""
    O, A = replay.spec.obs_dim, replay.spec.action_dim
    rows = replay.rows[k]
    left = reference_left(replay, k, i)
    actions = [rows[(i + j) % len(rows), -A:] if j < left else tail(j) for j in range(chunk)]
    after = [rows[to, -A:], np.zeros((chunk - 1) * A)]
    obs, next_obs = rows[i, -O - A : -A], rows[to, -O - A : -A]
    parts = [obs, *actions, next_obs, *after, [reward, discount, rows[i, RETURN]]]
    parts += [[min(left, chunk)]] if chunk > 1 else []
    return np.concatenate(parts).astype(np.float32)


def reference_steps(
    replay: Replay, k: int, i: int, n: int, gamma: float, chunk: int = 1, tail: Tail = None
) -> FloatArray:
    """One row of a batch without noise, computed the plain way."""
    rows, first = replay.rows[k], i
    reward, discount = np.float32(0), np.float32(1)
    for _ in range(n):
        reward += discount * rows[i, REWARD]
        discount *= np.float32(gamma)
        ended = rows[i, TERMINATED]
        i = (i + 1) % len(rows)
        if ended:
            discount = np.float32(0)
            break
        if rows[i, LEFT] == 0:
            break
    return join(replay, k, first, i, reward, discount, chunk, tail)


def reference_goal(
    replay: Replay, k: int, i: int, n: int, gamma: float, rule: Relabel, normalizer: Normalizer,
    seed: int, step: int, b: int, chunk: int = 1, shown: bool = False, waypoint: int = 0,
) -> FloatArray:  # fmt: skip
    """As `reference_steps`, with the goals of row b drawn anew; then the policy's goal and the waypoint."""
    O, A = replay.spec.obs_dim, replay.spec.action_dim
    rows, G = replay.rows[k], replay.rows.shape[-1] - HEADER - O - A
    mean, std = normalizer.mean[-G:], normalizer.std[-G:]
    first, capacity, left = i, len(rows), reference_left(replay, k, i)
    recorded = rows[first, HEADER + O : HEADER + O + G]

    def place(shares: Goals, n: int) -> int | None:
        """Row whose achieved goal is drawn, None for the recorded goal."""
        lot, u = unit(draw(seed, step, b, n)), np.array([unit(draw(seed, step, b, n + 1))], np.float32)
        own, current, future, uniform = np.array(shares.sums(), np.float32)
        if lot < own:
            return None
        if lot < current:
            return (first + 1) % capacity
        if lot >= future:
            return below(draw(seed, step, b, n + 2), int(replay.size[k]))
        geometric = reference_log(1 - u) * np.float32(1.0 / math.log(gamma))
        ahead = 1 + int((u * np.float32(left) if uniform else geometric)[0])
        return (first + min(ahead, left)) % capacity

    at = place(rule.value, 60)
    goal = recorded * std + mean if at is None else rows[at, HEADER : HEADER + G]
    reward, discount = np.float32(0), np.float32(1)
    for _ in range(n):
        i = (i + 1) % capacity
        reached = ((rows[i, HEADER : HEADER + G] - goal) ** 2).sum() <= np.float32(rule.radius) ** 2
        reward += discount * np.float32(rule.goal_reward if reached else rule.step_reward)
        discount *= np.float32(0 if reached else gamma)
        if reached or rows[i, LEFT] == 0:
            break
    row = join(replay, k, first, i, reward, discount, chunk)
    normal = (goal - mean) / std
    row[O - G : O] = row[2 * O + chunk * A - G : 2 * O + chunk * A] = normal
    if not shown:
        return row
    aim = at if rule.policy is None else place(rule.policy, 63)
    if rule.policy is not None:
        normal = recorded if aim is None else (rows[aim, HEADER : HEADER + G] - mean) / std
    row = np.concatenate([row, normal])
    if not waypoint:
        return row
    path = [(first + j) % capacity for j in range(1, left + 1)][:waypoint]
    if aim in path:
        path = path[: path.index(aim) + 1]
    achieved, obs = rows[path[-1], HEADER : HEADER + G], rows[path[-1], HEADER + G : HEADER + O]
    return np.concatenate([row, obs, (achieved - mean) / std]).astype(np.float32)


def reference_log(x: FloatArray) -> FloatArray:
    """ln x by a polynomial around 1, every operation in float32."""
    f32 = np.float32
    bits = x.view(np.int32) - 0x3F3504F3
    f = ((bits & 0x7FFFFF) + 0x3F3504F3).view(f32) - f32(1)
    p = f32(7.0376836292e-2)
    for c in (-1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
              -2.4999993993e-1, 3.3333331174e-1):  # fmt: skip
        p = p * f + f32(c)
    return (bits >> 23).astype(f32) * f32(math.log(2)) + (f + f * f * (p * f - f32(0.5)))


def reference_normals(bits: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Box and Muller's transform of 64 random bits each, every operation in float32."""
    f32 = np.float32
    u = ((bits >> 33).astype(f32) + f32(0.5)) * f32(2.0**-31)
    radius = np.sqrt(f32(-2) * reference_log(u))
    x = (bits & ((1 << 30) - 1)).astype(f32) * f32(2.0**-31 * math.pi) - f32(math.pi / 4)
    xx = x * x
    s0, s1, s2 = f32(-1.6666654611e-1), f32(8.3321608736e-3), f32(-1.9515295891e-4)
    c0, c1, c2 = f32(4.166664568298827e-2), f32(-1.388731625493765e-3), f32(2.443315711809948e-5)
    sine = x + x * xx * (s0 + xx * (s1 + xx * s2))
    cosine = f32(1) - f32(0.5) * xx + xx * xx * (c0 + xx * (c1 + xx * c2))
    radius = np.where(bits & (1 << 31), -radius, radius)
    swap = (bits & (1 << 30)) != 0
    return radius * np.where(swap, sine, cosine), radius * np.where(swap, cosine, sine)


def filled_ring(seed: int, seeds: int, envs: int, capacity: int, steps: int, goal: int = 0) -> tuple[Replay, list]:
    """A ring after `steps` pushes of random episodes, and everything pushed, by stream."""
    rng = np.random.default_rng(seed)
    ring = Replay.ring(Spec(3, 2), goal, seeds, envs, capacity)
    K = seeds * envs
    log: list = [[] for _ in range(K)]
    obs = rng.standard_normal((K, 3)).astype(np.float32)
    for t in range(steps):
        after = rng.standard_normal((K, 3)).astype(np.float32)
        action = rng.uniform(-1, 1, (K, 2)).astype(np.float32)
        reward = rng.standard_normal(K).astype(np.float32)
        ends = rng.random(K) < 0.2
        terminated = ends & (rng.random(K) < 0.5)
        truncated = ends & ~terminated
        push(ring, obs, action, reward, after, obs[:, :goal], after[:, :goal], terminated, truncated, 0.9)
        for k in range(K):
            log[k].append((t, obs[k], action[k], reward[k], after[k], terminated[k], truncated[k]))
        obs = np.where(ends[:, None], rng.standard_normal((K, 3)).astype(np.float32), after)
    return ring, log
