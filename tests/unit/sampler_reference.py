"""What the numba kernels must compute, written the plain way, and data to compute it on."""

from __future__ import annotations

import math

import numpy as np

from toolkit.data.replay import Normalizer, Relabel, Replay, push
from toolkit.data.sampler import HEADER, LEFT, RETURN, REWARD, TERMINATED
from toolkit.types import Episodes, FloatArray, Spec

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


def reference_pick(replay: Replay, seed_index: int, seed: int, step: int, b: int) -> tuple[int, int]:
    count = max(replay.streams_per_seed, 1)
    j = 0
    while True:
        bits = draw(seed, step, b, j)
        k = seed_index * replay.streams_per_seed + below(mix(bits ^ 0xBF58476D1CE4E5B9), count)
        i = below(bits, int(replay.size[k]))
        if replay.rows[k, i, LEFT] != 0:
            return k, i
        j += 1


def reference_steps(replay: Replay, k: int, i: int, n: int, gamma: float) -> FloatArray:
    """One row of a batch without noise, computed the plain way."""
    O, A = replay.spec.obs_dim, replay.spec.action_dim
    rows = replay.rows[k]
    first, reward, discount = rows[i], np.float32(0), np.float32(1)
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
    wide = slice(-O - A, None)
    return np.concatenate([first[wide], rows[i, wide], [reward, discount, first[RETURN]]]).astype(np.float32)


def reference_goal(
    replay: Replay, k: int, i: int, n: int, gamma: float, rule: Relabel, normalizer: Normalizer,
    seed: int, step: int, b: int,
) -> FloatArray:  # fmt: skip
    """As `reference_steps`, with the goal of row b drawn anew."""
    O, A = replay.spec.obs_dim, replay.spec.action_dim
    rows, G = replay.rows[k], replay.rows.shape[-1] - HEADER - O - A
    mean, std = normalizer.mean[-G:], normalizer.std[-G:]
    first, capacity = rows[i], len(rows)
    lot = unit(draw(seed, step, b, 60))
    if lot < rule.own:
        goal = first[HEADER + O : HEADER + O + G] * std + mean
    elif lot < rule.own + rule.future:
        left = int(first[LEFT]) if first[LEFT] > 0 else int(replay.head[k] - i) % capacity
        u = np.array([1.0 - unit(draw(seed, step, b, 61))], np.float32)
        ahead = 1 + int((reference_log(u) * np.float32(1.0 / math.log(gamma)))[0])
        goal = rows[(i + min(ahead, left)) % capacity, HEADER : HEADER + G]
    else:
        goal = rows[below(draw(seed, step, b, 62), int(replay.size[k])), HEADER : HEADER + G]
    reward, discount = np.float32(0), np.float32(1)
    for _ in range(n):
        i = (i + 1) % capacity
        reached = ((rows[i, HEADER : HEADER + G] - goal) ** 2).sum() <= np.float32(rule.radius) ** 2
        reward += discount * np.float32(rule.goal_reward if reached else rule.step_reward)
        discount *= np.float32(0 if reached else gamma)
        if reached or rows[i, LEFT] == 0:
            break
    obs, next_obs = (np.concatenate([row[HEADER + G : HEADER + O], (goal - mean) / std]) for row in (first, rows[i]))
    actions = first[-A:], rows[i, -A:]
    return np.concatenate([obs, actions[0], next_obs, actions[1], [reward, discount, first[RETURN]]]).astype(np.float32)


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
