"""Numba kernels that draw training batches straight into a preallocated array (level 1).

The random stream is counter-based: number j of row b of the batch for (seed, step) is a hash of those four, so a
batch depends on seed and step alone, in any order, on any thread, after any resume.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

# A packed row: transitions left | reward | terminated | Monte Carlo return | obs (O) | action (A) | achieved goal (G).
LEFT, REWARD, TERMINATED, RETURN, HEADER = 0, 1, 2, 3, 4
# Transitions left until the episode's final row: 0 marks that row itself, RUNNING an episode without end so far.
FINAL, RUNNING = 0.0, -1.0

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0xD1342543DE82EF95)
_S30, _S27, _S31, _S32, _S11, _S40 = (np.uint64(n) for n in (30, 27, 31, 32, 11, 40))
_DRAWS = np.uint64(1 << 20)  # numbers set aside for one row
_TINY = 2.0**-54


@numba.njit(inline="always")
def mix(x: Any) -> Any:
    """The splitmix64 finaliser (Steele, Lea & Flood 2014): a bijection that scrambles all 64 bits."""
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@numba.njit(inline="always")
def stream(seed: Any, step: Any) -> Any:
    """Key of the random stream of one seed at one step."""
    return mix(mix(np.uint64(seed) * _GAMMA + np.uint64(1)) + np.uint64(step) * _STEP)


@numba.njit(inline="always")
def draw(key: Any, row: Any, j: Any) -> Any:
    """Number j of a row of the stream, 64 random bits."""
    return mix(key + (np.uint64(row) * _DRAWS + np.uint64(j) + np.uint64(1)) * _GAMMA)


@numba.njit(inline="always")
def below(bits: Any, n: Any) -> Any:
    """Uniform integer in [0, n) from 64 random bits, n < 2^32."""
    return np.int64(((bits >> _S32) * np.uint64(n)) >> _S32)


@numba.njit(inline="always")
def unit(bits: Any) -> Any:
    """Uniform number in [0, 1) from 64 random bits."""
    return np.float64(bits >> _S11) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def fill_noise(out: Floats, column: int, seeds: Ints, step0: int) -> None:
    """Standard normal numbers into out[..., column:], shape (U, S, B, W), by the Box-Muller transform."""
    U, S, B, W = out.shape
    for u in range(U):
        for s in range(S):
            key = stream(seeds[s], step0 + u)
            for b in range(B):
                for j in range(column, W, 2):
                    radius = math.sqrt(-2.0 * math.log(unit(draw(key, b, 2 * j + 64)) + _TINY))
                    angle = 2.0 * math.pi * unit(draw(key, b, 2 * j + 65))
                    out[u, s, b, j] = radius * math.cos(angle)
                    if j + 1 < W:
                        out[u, s, b, j + 1] = radius * math.sin(angle)


@numba.njit(inline="always")
def _copy(to: Any, y: Any, source: Any, x: Any, n: Any) -> None:
    # Unsigned indices cannot be negative, which lets the compiler use vector instructions.
    yy, xx = np.uintp(y), np.uintp(x)
    for c in range(np.uintp(n)):
        to[yy + c] = source[xx + c]


@numba.njit(inline="always")
def _choose(
    chosen: Any, begin: Any, end: Any, flat: Any, shape: Any, size: Any, first: Any, count: Any, key: Any
) -> None:
    # Choosing first and copying after lets the processor wait for many cache misses at once.
    for b in range(begin, end):
        j = 0
        while True:
            bits = draw(key, b, j)
            k = first + below(mix(bits ^ _MIX1), count)
            i = below(bits, size[k])
            if flat[(k * shape[1] + i) * shape[2]] != FINAL:
                break
            j += 1
        chosen[0, b], chosen[1, b] = k, i


@numba.njit(cache=True, nogil=True)
def fill_steps(
    out: Floats, begin: Ints, end: Ints, rows: Floats, size: Ints, streams_per_seed: int,
    seeds: Ints, step0: int, n_step: int, gamma: float, O: int, A: int,
) -> None:  # fmt: skip
    """Draw transitions of up to `n_step` steps into rows begin[u] to end[u] of each batch of `out` (U, S, B, WO).

    `rows` is (streams, capacity, W) in the layout of `replay`; stream k holds size[k] written rows.
    Seed s reads streams [s * streams_per_seed, (s + 1) * streams_per_seed), or stream 0 alone when
    `streams_per_seed` is 0 (one data set shared by all seeds). A window shortens at the end of its episode:
    the final row of an episode carries no transition, so nothing crosses it.
    """
    U, S, B, WO = out.shape
    K, capacity, W = rows.shape
    flat, to = rows.reshape(K * capacity * W), out.reshape(U * S * B * WO)
    wide = O + A
    chosen = np.empty((2, B), np.int64)
    count = np.uint64(max(streams_per_seed, 1))
    for u in range(U):
        for s in range(S):
            key = stream(seeds[s], step0 + u)
            _choose(chosen, begin[u], end[u], flat, rows.shape, size, s * streams_per_seed, count, key)
            for b in range(begin[u], end[u]):
                k, i = chosen[0, b], chosen[1, b]
                x = (k * capacity + i) * W
                y = ((u * S + s) * B + b) * WO
                _copy(to, y, flat, x + HEADER, wide)
                to[y + 2 * wide + 2] = flat[x + RETURN]
                reward, discount = np.float32(0.0), np.float32(1.0)
                for _ in range(n_step):
                    reward += discount * flat[x + REWARD]
                    discount *= np.float32(gamma)
                    ended = flat[x + TERMINATED] != 0.0
                    i += 1
                    x += W
                    if i == capacity:
                        i, x = 0, k * capacity * W
                    if ended:
                        discount = np.float32(0.0)
                        break
                    if flat[x] == FINAL:
                        break
                to[y + 2 * wide], to[y + 2 * wide + 1] = reward, discount
                _copy(to, y + wide, flat, x + HEADER, wide)


@numba.njit(cache=True, nogil=True)
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
    wide = O + A
    achieved = HEADER + wide
    chosen = np.empty((2, B), np.int64)
    goal = np.empty(G, np.float32)
    count = np.uint64(max(streams_per_seed, 1))
    near = np.float32(radius) * np.float32(radius)
    for u in range(U):
        for s in range(S):
            key = stream(seeds[s], step0 + u)
            _choose(chosen, begin[u], end[u], flat, rows.shape, size, s * streams_per_seed, count, key)
            for b in range(begin[u], end[u]):
                k, i = chosen[0, b], chosen[1, b]
                x = (k * capacity + i) * W
                y = ((u * S + s) * B + b) * WO
                lot = unit(draw(key, b, 60))
                if lot < own:
                    for g in range(G):
                        goal[g] = flat[x + HEADER + O - G + g] * std[g] + mean[g]
                else:
                    if lot < own + future:
                        left = np.int64(flat[x + LEFT])
                        if left < 0:
                            left = (head[k] - i) % capacity
                        ahead = 1 + np.int64(math.log(1.0 - unit(draw(key, b, 61))) / math.log(gamma))
                        at = (i + min(ahead, left)) % capacity
                    else:
                        at = below(draw(key, b, 62), size[k])
                    for g in range(G):
                        goal[g] = flat[(k * capacity + at) * W + achieved + g]
                _copy(to, y, flat, x + HEADER, wide)
                to[y + 2 * wide + 2] = flat[x + RETURN]
                reward, discount = np.float32(0.0), np.float32(1.0)
                for _ in range(n_step):
                    i += 1
                    x += W
                    if i == capacity:
                        i, x = 0, k * capacity * W
                    distance = np.float32(0.0)
                    for g in range(G):
                        distance += (flat[x + achieved + g] - goal[g]) ** 2
                    if distance <= near:
                        reward += discount * np.float32(goal_reward)
                        discount = np.float32(0.0)
                        break
                    reward += discount * np.float32(step_reward)
                    discount *= np.float32(gamma)
                    if flat[x] == FINAL:
                        break
                to[y + 2 * wide], to[y + 2 * wide + 1] = reward, discount
                _copy(to, y + wide, flat, x + HEADER, wide)
                for g in range(G):
                    normal = (goal[g] - mean[g]) / std[g]
                    to[y + O - G + g] = normal
                    to[y + wide + O - G + g] = normal


@numba.njit(cache=True, nogil=True)
def push_steps(
    rows: Floats, size: Ints, head: Ints, begun: Ints, obs: Floats, action: Floats, reward: Floats, next_obs: Floats,
    achieved: Floats, next_achieved: Floats, terminated: Bools, truncated: Bools, gamma: float, no_return: float,
) -> None:  # fmt: skip
    """Append one transition to each stream; arguments are (streams, ...).

    The row after the newest transition always holds its next observation marked FINAL. The next transition of
    the same episode overwrites that row with itself, so a reader needs to know nothing of the write position.
    A finished episode keeps its final row, and its Monte Carlo returns and lengths are written backwards.
    """
    K, capacity = rows.shape[0], rows.shape[1]
    O, A, G = obs.shape[1], action.shape[1], achieved.shape[1]
    for k in range(K):
        h = head[k]
        rows[k, h, LEFT], rows[k, h, REWARD], rows[k, h, RETURN] = RUNNING, reward[k], no_return
        rows[k, h, TERMINATED] = 1.0 if terminated[k] else 0.0
        rows[k, h, HEADER : HEADER + O] = obs[k]
        rows[k, h, HEADER + O : HEADER + O + A] = action[k]
        rows[k, h, HEADER + O + A : HEADER + O + A + G] = achieved[k]
        h = (h + 1) % capacity
        rows[k, h, :] = 0.0
        rows[k, h, HEADER : HEADER + O] = next_obs[k]
        rows[k, h, HEADER + O + A : HEADER + O + A + G] = next_achieved[k]
        size[k] = capacity if h == 0 else max(size[k], h + 1)
        begun[k] += 1
        if terminated[k] or truncated[k]:
            total, j = np.float32(0.0), h
            for left in range(1, min(begun[k], capacity - 1) + 1):
                j = j - 1 if j > 0 else capacity - 1
                total = rows[k, j, REWARD] + np.float32(gamma) * total
                rows[k, j, RETURN], rows[k, j, LEFT] = total, left
            begun[k] = 0
            h = (h + 1) % capacity
        head[k] = h
