"""Numba kernels that draw training batches straight into a preallocated array (level 1).

A batch depends on seed and step alone (see `random`), in any order, on any thread, after any resume.

Rows lie at random places of a memory that is far larger than the caches, and waiting for them is all the time that
drawing takes. So the kernels ask for the rows of a transition `_AHEAD` transitions before they read them.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from toolkit.data.jit import kernel, prefetch
from toolkit.data.random import below, draw, log, mix, stream, unit

# A packed row: transitions left | reward | terminated | Monte Carlo return | achieved goal (G) | obs (O) | action (A).
LEFT, REWARD, TERMINATED, RETURN, HEADER = 0, 1, 2, 3, 4
# Transitions left until the episode's final row: 0 marks that row itself, RUNNING an episode without end so far.
FINAL, RUNNING = 0.0, -1.0

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

# The functions below are copied into the kernels (inline="always") and have one way out of each loop: otherwise numba
# counts references to arrays within, and its atomic counters keep the processor from waiting for many rows at once.
_AHEAD = 32
_LINE = 16  # float32 numbers in what memory hands out at once
_STREAM = np.uint64(0xBF58476D1CE4E5B9)  # makes the choice of the stream independent of the place in it
# Numbers of a row's stream, counted from 0, of which the choice of the row takes the first few.
_GOAL_KIND, _GOAL_FUTURE, _GOAL_RANDOM = 60, 61, 62


@numba.njit(inline="always")
def _copy(to: Any, y: Any, source: Any, x: Any, n: Any) -> None:
    # Unsigned indices cannot be negative, which lets the compiler use vector instructions.
    yy, xx = np.uintp(y), np.uintp(x)
    for c in range(np.uintp(n)):
        to[yy + c] = source[xx + c]


@numba.njit(inline="always")
def _pick(key: Any, b: Any, attempt: Any, size: Any, first: Any, count: Any) -> Any:
    """Stream and place of a row, uniform over `count` streams and the rows written in the one drawn."""
    bits = draw(key, b, attempt)
    k = first + below(mix(bits ^ _STREAM), count)
    return k, below(bits, size[k])


@numba.njit(inline="always")
def _settle(key: Any, b: Any, k: Any, i: Any, flat: Any, shape: Any, size: Any, first: Any, count: Any) -> Any:
    """The row (k, i) that was picked for b or, while it is one without a transition, the next that is picked."""
    attempt = 0
    while flat[(k * shape[1] + i) * shape[2]] == FINAL:
        attempt += 1
        k, i = _pick(key, b, attempt, size, first, count)
    return k, i


@numba.njit(inline="always")
def _ask(flat: Any, x: Any, W: Any, n_step: Any) -> None:
    """Prefetch the rows of a transition that begins at flat[x]: first and last in whole, the header of the others."""
    for j in range(1, n_step):
        prefetch(flat, x + j * W)
    for c in range(0, W, _LINE):
        prefetch(flat, x + c)
        prefetch(flat, x + n_step * W + c)
    prefetch(flat, x + n_step * W + W - 1)


@numba.njit(inline="always")
def _walk(flat: Any, k: Any, i: Any, shape: Any, n_step: Any, gamma: Any) -> Any:
    """Discounted reward of up to `n_step` steps from row (k, i), what discounts the value after them, and where."""
    _, capacity, W = shape
    x = (k * capacity + i) * W
    reward, discount = np.float32(0.0), np.float32(1.0)
    while n_step > 0:
        reward += discount * flat[x + REWARD]
        ended = flat[x + TERMINATED] != 0.0
        discount *= np.float32(0.0) if ended else np.float32(gamma)
        i += 1
        x += W
        if i == capacity:
            i, x = 0, k * capacity * W
        n_step = 0 if ended or flat[x] == FINAL else n_step - 1
    return reward, discount, x


@numba.njit(inline="always")
def _write(to: Any, y: Any, flat: Any, x: Any, z: Any, W: Any, wide: Any, reward: Any, discount: Any) -> None:
    """One row of a batch up to its scalars: the transition at flat[x] and the observation after it at flat[z]."""
    _copy(to, y, flat, x + W - wide, wide)
    _copy(to, y + wide, flat, z + W - wide, wide)
    to[y + 2 * wide], to[y + 2 * wide + 1], to[y + 2 * wide + 2] = reward, discount, flat[x + RETURN]


@kernel
def fill_steps(
    out: Floats, begin: Ints, end: Ints, rows: Floats, size: Ints, streams_per_seed: int,
    seeds: Ints, step0: int, n_step: int, gamma: float, O: int, A: int, G: int,
) -> None:  # fmt: skip
    """Draw transitions of up to `n_step` steps into rows begin[u] to end[u] of each batch of `out` (U, S, B, WO).

    `rows` is (streams, capacity, W) in the layout of `replay`; stream k holds size[k] written rows.
    Seed s reads streams [s * streams_per_seed, (s + 1) * streams_per_seed), or stream 0 alone when
    `streams_per_seed` is 0 (one data set shared by all seeds). A window shortens at the end of its episode:
    the final row of an episode carries no transition, so nothing crosses it. The policy's goal is the row's own: the
    last G numbers of its observation.
    """
    U, S, B, WO = out.shape
    K, capacity, W = rows.shape
    flat, to = rows.reshape(K * capacity * W), out.reshape(U * S * B * WO)
    chosen = np.empty((2, B), np.int64)
    count = np.uint64(max(streams_per_seed, 1))
    for u in range(U):
        for s in range(S):
            key, first = stream(seeds[s], step0 + u), s * streams_per_seed
            for t in range(begin[u], end[u] + _AHEAD):
                if t < end[u]:
                    k, i = _pick(key, t, 0, size, first, count)
                    chosen[0, t], chosen[1, t] = k, i
                    _ask(flat, (k * capacity + i) * W, W, n_step)
                b = t - _AHEAD
                if b >= begin[u]:
                    k, i = _settle(key, b, chosen[0, b], chosen[1, b], flat, rows.shape, size, first, count)
                    reward, discount, z = _walk(flat, k, i, rows.shape, n_step, gamma)
                    y = ((u * S + s) * B + b) * WO
                    _write(to, y, flat, (k * capacity + i) * W, z, W, O + A, reward, discount)
                    _copy(to, y + 2 * (O + A) + 3, to, y + O - G, G)


@numba.njit(inline="always")
def _goal_place(
    key: Any, b: Any, i: Any, left: Any, size: Any, capacity: Any, own: Any, future: Any, scale: Any
) -> Any:  # fmt: skip
    """Row of the same stream whose achieved goal row b of the batch strives for, or -1 for the recorded goal."""
    lot = unit(draw(key, b, _GOAL_KIND))
    ahead = 1 + np.int64(log(np.float32(1.0) - unit(draw(key, b, _GOAL_FUTURE))) * scale)
    at = i + min(ahead, left)
    at = at - capacity if at >= capacity else at
    at = at if lot < own + future else below(draw(key, b, _GOAL_RANDOM), size)
    return at if lot >= own else -1


@numba.njit(inline="always")
def _walk_to_goal(
    flat: Any, k: Any, i: Any, shape: Any, n_step: Any, gamma: Any, goal: Any, near: Any,
    step_reward: Any, goal_reward: Any,
) -> Any:  # fmt: skip
    """As `_walk` by the task's rule: the step after which `goal` (G,) is near pays `goal_reward` and is the last."""
    _, capacity, W = shape
    x = (k * capacity + i) * W
    reward, discount = np.float32(0.0), np.float32(1.0)
    while n_step > 0:
        i += 1
        x += W
        if i == capacity:
            i, x = 0, k * capacity * W
        distance = np.float32(0.0)
        for g in range(len(goal)):
            offset = flat[x + HEADER + g] - goal[g]
            distance += offset * offset
        reached = distance <= near
        reward += discount * (goal_reward if reached else step_reward)
        discount *= np.float32(0.0) if reached else np.float32(gamma)
        n_step = 0 if reached or flat[x] == FINAL else n_step - 1
    return reward, discount, x


@kernel
def fill_goals(
    out: Floats, begin: Ints, end: Ints, rows: Floats, size: Ints, head: Ints, streams_per_seed: int,
    seeds: Ints, step0: int, n_step: int, gamma: float, O: int, A: int,
    own: float, future: float, radius: float, step_reward: float, goal_reward: float, mean: Floats, std: Floats,
) -> None:  # fmt: skip
    """As `fill_steps`, with the goal of each transition drawn anew (HER, Andrychowicz et al. 2017, arXiv:1707.01495).

    With probability `own` the recorded goal stays; with `future` it is what the same episode achieved a
    geometrically distributed number of steps later (mean 1 / (1 - gamma), at most the episode's end); else what a
    random row of the stream achieved. The last G of the O observation columns hold the goal, normalised by `mean`
    and `std` (G,). Reward and termination follow from the distance to the new goal.
    """
    U, S, B, WO = out.shape
    K, capacity, W = rows.shape
    G = len(mean)
    flat, to = rows.reshape(K * capacity * W), out.reshape(U * S * B * WO)
    wide, recorded = O + A, W - A - G
    chosen, goal = np.empty((3, B), np.int64), np.empty(G, np.float32)
    count = np.uint64(max(streams_per_seed, 1))
    near, scale = np.float32(radius) * np.float32(radius), np.float32(1.0 / math.log(gamma))
    rewards = np.float32(step_reward), np.float32(goal_reward)
    for u in range(U):
        for s in range(S):
            key, first = stream(seeds[s], step0 + u), s * streams_per_seed
            for t in range(begin[u], end[u] + 2 * _AHEAD):
                if t < end[u]:
                    k, i = _pick(key, t, 0, size, first, count)
                    chosen[0, t], chosen[1, t] = k, i
                    _ask(flat, (k * capacity + i) * W, W, n_step)
                b = t - _AHEAD
                if begin[u] <= b < end[u]:
                    k, i = _settle(key, b, chosen[0, b], chosen[1, b], flat, rows.shape, size, first, count)
                    left = np.int64(flat[(k * capacity + i) * W + LEFT])
                    if left < 0:
                        left = head[k] - i if head[k] > i else head[k] - i + capacity
                    at = _goal_place(key, b, i, left, size[k], capacity, own, future, scale)
                    chosen[0, b], chosen[1, b], chosen[2, b] = k, i, at
                    prefetch(flat, (k * capacity + at) * W + HEADER)
                b -= _AHEAD
                if b >= begin[u]:
                    k, i, at = chosen[0, b], chosen[1, b], chosen[2, b]
                    x, y = (k * capacity + i) * W, ((u * S + s) * B + b) * WO
                    for g in range(G):
                        if at < 0:
                            goal[g] = flat[x + recorded + g] * std[g] + mean[g]
                        else:
                            goal[g] = flat[(k * capacity + at) * W + HEADER + g]
                    reward, discount, z = _walk_to_goal(
                        flat, k, i, rows.shape, n_step, gamma, goal, near, rewards[0], rewards[1]
                    )
                    _write(to, y, flat, x, z, W, wide, reward, discount)
                    for g in range(G):
                        normal = (goal[g] - mean[g]) / std[g]
                        to[y + O - G + g] = to[y + wide + O - G + g] = normal


@kernel
def push_steps(
    rows: Floats, size: Ints, head: Ints, begun: Ints, obs: Floats, action: Floats, reward: Floats, next_obs: Floats,
    achieved: Floats, next_achieved: Floats, terminated: Bools, truncated: Bools, gamma: float, cut_value: float,
    no_return: float,
) -> None:  # fmt: skip
    """Append one transition to each stream; arguments are (streams, ...).

    The row after the newest transition always holds its next observation marked FINAL. The next transition of
    the same episode overwrites that row with itself, so a reader needs to know nothing of the write position.
    A finished episode keeps its final row, and its Monte Carlo returns and lengths are written backwards.
    """
    K, capacity = rows.shape[0], rows.shape[1]
    O, G = obs.shape[1], achieved.shape[1]
    for k in range(K):
        h = head[k]
        rows[k, h, LEFT], rows[k, h, REWARD], rows[k, h, RETURN] = RUNNING, reward[k], no_return
        rows[k, h, TERMINATED] = 1.0 if terminated[k] else 0.0
        rows[k, h, HEADER : HEADER + G] = achieved[k]
        rows[k, h, HEADER + G : HEADER + G + O] = obs[k]
        rows[k, h, HEADER + G + O :] = action[k]
        h = (h + 1) % capacity
        rows[k, h, :] = 0.0
        rows[k, h, HEADER : HEADER + G] = next_achieved[k]
        rows[k, h, HEADER + G : HEADER + G + O] = next_obs[k]
        size[k] = capacity if h == 0 else max(size[k], h + 1)
        begun[k] += 1
        if terminated[k] or truncated[k]:
            total, j = np.float32(0.0 if terminated[k] else cut_value), h
            for left in range(1, min(begun[k], capacity - 1) + 1):
                j = j - 1 if j > 0 else capacity - 1
                total = rows[k, j, REWARD] + np.float32(gamma) * total
                rows[k, j, RETURN], rows[k, j, LEFT] = total, left
            begun[k] = 0
            h = (h + 1) % capacity
        head[k] = h
