"""The numba kernel that draws goals anew: for the values, for the policy, and waypoints on the way (level 1).

The rule of the goals is OGBench's (Park et al. 2024, arXiv:2410.20092), waypoints are HIQL's (arXiv:2307.11949).
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from toolkit.data.jit import kernel, prefetch
from toolkit.data.random import below, draw, log, stream, unit
from toolkit.data.sampler import AHEAD, FINAL, HEADER, LINE, ask, copy, pick, settle, write
from toolkit.types import FloatArray, IntArray

# Numbers of a row's stream, counted from 0, of which the choice of the row takes the first few: three for each goal.
_VALUE_GOAL, _POLICY_GOAL = 60, 63


@numba.njit(inline="always")
def _with_factors(shares: Any, which: Any, gamma: Any) -> Any:
    """A row of the shares that `fill_goals` is given, as `_goal_place` takes it."""
    uniform = shares[which, 3]
    geometric = np.float32(1.0 / math.log(gamma)) * (np.float32(1.0) - uniform)
    return shares[which, 0], shares[which, 1], shares[which, 2], geometric, uniform


@numba.njit(inline="always")
def _goal_place(
    key: Any, b: Any, n: Any, i: Any, left: Any, size: Any, capacity: Any, shares: Any
) -> Any:  # fmt: skip
    """Row of the same stream whose achieved goal row b of the batch strives for, or -1 for the recorded goal.

    Takes numbers n to n + 2 of the row's stream. `shares` are those of `fill_goals`, then factors of a geometric and a
    uniform number of steps, of which one is 0.
    """
    lot, u = unit(draw(key, b, n)), unit(draw(key, b, n + 1))
    ahead = 1 + np.int64(log(np.float32(1.0) - u) * shares[3] + u * (np.float32(left) * shares[4]))
    at = i + min(ahead, left if lot >= shares[1] else 1)
    at = at - capacity if at >= capacity else at
    at = at if lot < shares[2] else below(draw(key, b, n + 2), size)
    return at if lot >= shares[0] else -1


@numba.njit(inline="always")
def _way_place(i: Any, left: Any, capacity: Any, goal: Any, steps: Any) -> Any:
    """Row `steps` after row i: not beyond the end of its episode, nor beyond row `goal` where that comes before it."""
    gap = goal - i if goal >= i else goal - i + capacity
    steps = min(steps, left)
    at = i + (min(steps, gap) if goal >= 0 and 0 < gap <= left else steps)
    return at - capacity if at >= capacity else at


@numba.njit(inline="always")
def _walk_to_goal(
    flat: Any, k: Any, i: Any, shape: Any, n_step: Any, gamma: Any, goal: Any, near: Any,
    step_reward: Any, goal_reward: Any,
) -> Any:  # fmt: skip
    """Discounted reward of up to `n_step` steps from row (k, i), what discounts the value after them, and where.

    By the task's rule: the step after which `goal` (G,) is near pays `goal_reward` and is the last.
    """
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


@numba.njit(inline="always")
def _write_goal(to: Any, y: Any, flat: Any, x: Any, mean: Any, std: Any) -> None:
    """The goal at flat[x], normalised."""
    for g in range(len(mean)):
        to[y + g] = (flat[x + g] - mean[g]) / std[g]


@numba.njit(error_model="numpy")
def _fill_ahead(
    to: Any, y: Any, flat: Any, shape: Any, size: Any, chosen: Any, begin: Any, end: Any, key: Any, O: Any, WO: Any,
    policy: Any, apart: Any, waypoint: Any, mean: Any, std: Any, ahead: Any,
) -> None:  # fmt: skip
    """Policy goals, and waypoints, into rows begin to end of the batch at to[y], `ahead` numbers from a row's first.

    `chosen` (B, 5) holds stream, row, transitions left and row of the value's goal; in the end the waypoint's row too.
    """
    _, capacity, W = shape
    G = len(mean)
    for t in range(begin, end + AHEAD):
        if t < end:
            k, i, left, aim = chosen[t, 0], chosen[t, 1], chosen[t, 2], chosen[t, 3]
            if apart:
                aim = _goal_place(key, t, _POLICY_GOAL, i, left, size[k], capacity, policy)
            way = _way_place(i, left, capacity, aim, waypoint)
            chosen[t, 3], chosen[t, 4] = aim, way
            prefetch(flat, (k * capacity + aim) * W + HEADER)
            for c in range(HEADER, W * (waypoint > 0), LINE):
                prefetch(flat, (k * capacity + way) * W + c)
        b = t - AHEAD
        if b >= begin:
            x, row = chosen[b, 0] * capacity * W + HEADER, y + b * WO
            if not apart:
                copy(to, row + ahead, to, row + O - G, G)
            elif chosen[b, 3] < 0:  # the row's own, the last of its observation
                copy(to, row + ahead, flat, x + chosen[b, 1] * W + O, G)
            else:
                _write_goal(to, row + ahead, flat, x + chosen[b, 3] * W, mean, std)
            if waypoint > 0:
                x += chosen[b, 4] * W
                copy(to, row + ahead + G, flat, x + G, O - G)
                _write_goal(to, row + ahead + O, flat, x, mean, std)


@numba.njit(error_model="numpy")
def _read_goal(goal: Any, flat: Any, row: Any, recorded: Any, mean: Any, std: Any) -> None:
    """The goal of a row in the simulator's units: as recorded, normalised, behind its observation, or achieved."""
    for g in range(len(goal)):
        number = flat[row + HEADER + g]
        goal[g] = number * std[g] + mean[g] if recorded else number


@kernel
def fill_goals(
    out: FloatArray, begin: IntArray, end: IntArray, rows: FloatArray, size: IntArray, head: IntArray,
    streams_per_seed: int, seeds: IntArray, step0: int, n_step: int, gamma: float, O: int, A: int, shown: int,
    chunk: int, waypoint: int, shares: FloatArray, apart: bool, radius: float, step_reward: float, goal_reward: float,
    mean: FloatArray, std: FloatArray,
) -> int:  # fmt: skip
    """As `fill_steps`, with a hindsight goal for each transition (HER, Andrychowicz et al. 2017, arXiv:1707.01495).

    What ended the episode is another goal's end: `chunk` transitions always follow.
    `shares` (2, 4) is for values and policy: below its first number a row keeps its recorded goal, below the second it
    strives for what its own step achieves, below the third for what the same episode achieves some steps later:
    geometrically many (mean 1 / (1 - gamma), at most to the episode's end), or uniformly where the fourth is 1; else
    for what a random row of the stream achieved. The last G of the O observation columns hold the goal,
    normalised by `mean` and `std` (G,); reward and termination follow from the distance to it. After the scalars come
    `shown` (0 or G) columns with the policy's goal, the same one unless `apart`, and, where `waypoint` is above 0, the
    state that many steps later with its achieved goal: not beyond the episode nor the policy's goal ahead in it.
    """
    U, S, B, WO = out.shape
    K, capacity, W = rows.shape
    G = len(mean)
    flat, to = rows.reshape(K * capacity * W), out.reshape(U * S * B * WO)
    wide = O + chunk * A
    chosen, goal = np.empty((B, 5), np.int64), np.empty(G, np.float32)
    count, missing = np.uint64(max(streams_per_seed, 1)), 0
    value, policy = _with_factors(shares, 0, gamma), _with_factors(shares, 1, gamma)
    near = np.float32(radius) * np.float32(radius)
    rewards = np.float32(step_reward), np.float32(goal_reward)
    for u in range(U):
        for s in range(S):
            key, first = stream(seeds[s], step0 + u), s * streams_per_seed
            for t in range(begin[u, s], end[u, s] + 2 * AHEAD):
                if t < end[u, s]:
                    k, i = pick(key, t, 0, size, first, count)
                    chosen[t, 0], chosen[t, 1] = k, i
                    ask(flat, (k * capacity + i) * W, W, n_step, chunk)
                b = t - AHEAD
                if begin[u, s] <= b < end[u, s]:
                    k, i = chosen[b, 0], chosen[b, 1]
                    k, i, left = settle(key, b, k, i, flat, rows.shape, size, head, first, count, chunk, False)
                    missing += left < chunk
                    at = _goal_place(key, b, _VALUE_GOAL, i, left, size[k], capacity, value)
                    chosen[b, 0], chosen[b, 1], chosen[b, 2], chosen[b, 3] = k, i, left, at
                    prefetch(flat, (k * capacity + at) * W + HEADER)
                b -= AHEAD
                if b >= begin[u, s]:
                    k, i, at = chosen[b, 0], chosen[b, 1], chosen[b, 3]
                    x, y = k * capacity * W, ((u * S + s) * B + b) * WO
                    _read_goal(goal, flat, x + i * W + O if at < 0 else x + at * W, at < 0, mean, std)
                    reward, discount, z = _walk_to_goal(
                        flat, k, i, rows.shape, n_step, gamma, goal, near, rewards[0], rewards[1]
                    )
                    write(to, y, flat, k, i, rows.shape, z, O, A, chunk, chunk, reward, discount)
                    _write_goal(to, y + O - G, goal, 0, mean, std)
                    copy(to, y + wide + O - G, to, y + O - G, G)
            if shown > 0:
                _fill_ahead(
                    to, (u * S + s) * B * WO, flat, rows.shape, size, chosen, begin[u, s], end[u, s], key, O, WO,
                    policy, apart, waypoint, mean, std, 2 * wide + 3 + (chunk > 1),
                )  # fmt: skip
    return missing
