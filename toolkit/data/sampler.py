"""Numba kernels that draw training batches straight into a preallocated array (level 1).

The random stream is counter-based: number j of row b of the batch for (seed, step) is a hash of those four, so a
batch depends on seed and step alone, in any order, on any thread, after any resume.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

# A packed row: kind | reward | terminated | Monte Carlo return | obs (O) | action (A).
KIND, REWARD, TERMINATED, RETURN, HEADER = 0, 1, 2, 3, 4
FINAL, STEP = 0.0, 1.0

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
def fill_noise(out: npt.NDArray[np.float32], column: int, seeds: npt.NDArray[np.int64], step0: int) -> None:
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


@numba.njit(cache=True, nogil=True)
def fill_steps(
    out: npt.NDArray[np.float32],
    begin: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    size: npt.NDArray[np.int64],
    streams_per_seed: int,
    seeds: npt.NDArray[np.int64],
    step0: int,
    n_step: int,
    gamma: float,
    O: int,
    A: int,
) -> None:
    """Draw transitions of up to `n_step` steps into rows begin[u] to end[u] of each batch.

    `rows` is (streams, capacity, W) in the layout of `replay`; stream k holds size[k] written rows.
    Seed s reads streams [s * streams_per_seed, (s + 1) * streams_per_seed), or stream 0 alone when
    `streams_per_seed` is 0 (one data set shared by all seeds). A window shortens at the end of its episode:
    the final row of an episode carries no transition, so nothing crosses it.
    """
    U, S, B, WO = out.shape
    K, capacity, W = rows.shape
    flat, to = rows.reshape(K * capacity * W), out.reshape(U * S * B * WO)
    o_reward = 2 * (O + A)
    o_discount, o_return = o_reward + 1, o_reward + 2
    chosen = np.empty((2, B), np.int64)
    count = np.uint64(max(streams_per_seed, 1))
    for u in range(U):
        for s in range(S):
            key = stream(seeds[s], step0 + u)
            # Choosing first and copying after lets the processor wait for many cache misses at once.
            for b in range(begin[u], end[u]):
                j = 0
                while True:
                    bits = draw(key, b, j)
                    k = s * streams_per_seed + below(mix(bits ^ _MIX1), count)
                    i = below(bits, size[k])
                    if flat[(k * capacity + i) * W] == STEP:
                        break
                    j += 1
                chosen[0, b], chosen[1, b] = k, i
            for b in range(begin[u], end[u]):
                k, i = chosen[0, b], chosen[1, b]
                x = (k * capacity + i) * W
                y = ((u * S + s) * B + b) * WO
                _copy(to, y, flat, x + HEADER, O + A)
                to[y + o_return] = flat[x + RETURN]
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
                to[y + o_reward], to[y + o_discount] = reward, discount
                _copy(to, y + O + A, flat, x + HEADER, O + A)


@numba.njit(cache=True, nogil=True)
def push_steps(
    rows: npt.NDArray[np.float32],
    size: npt.NDArray[np.int64],
    head: npt.NDArray[np.int64],
    begun: npt.NDArray[np.int64],
    obs: npt.NDArray[np.float32],
    action: npt.NDArray[np.float32],
    reward: npt.NDArray[np.float32],
    next_obs: npt.NDArray[np.float32],
    terminated: npt.NDArray[np.bool_],
    truncated: npt.NDArray[np.bool_],
    gamma: float,
    no_return: float,
) -> None:
    """Append one transition to each stream; arguments are (streams, ...).

    The row after the newest transition always holds its next observation marked FINAL. The next transition of
    the same episode overwrites that row with itself, so a reader needs to know nothing of the write position.
    A finished episode keeps its final row, and its Monte Carlo returns are written backwards.
    """
    K, capacity = rows.shape[0], rows.shape[1]
    O, A = obs.shape[1], action.shape[1]
    for k in range(K):
        h = head[k]
        rows[k, h, KIND], rows[k, h, REWARD], rows[k, h, RETURN] = STEP, reward[k], no_return
        rows[k, h, TERMINATED] = 1.0 if terminated[k] else 0.0
        for c in range(O):
            rows[k, h, HEADER + c] = obs[k, c]
        for c in range(A):
            rows[k, h, HEADER + O + c] = action[k, c]
        h = (h + 1) % capacity
        rows[k, h, :] = 0.0
        rows[k, h, KIND] = FINAL
        for c in range(O):
            rows[k, h, HEADER + c] = next_obs[k, c]
        size[k] = capacity if h == 0 else max(size[k], h + 1)
        begun[k] += 1
        if terminated[k] or truncated[k]:
            total, j = np.float32(0.0), h
            for _ in range(min(begun[k], capacity - 1)):
                j = j - 1 if j > 0 else capacity - 1
                total = rows[k, j, REWARD] + np.float32(gamma) * total
                rows[k, j, RETURN] = total
            begun[k] = 0
            h = (h + 1) % capacity
        head[k] = h
