"""Numba kernels that draw training batches straight into a preallocated array (level 1).

A batch depends on seed and step alone (see `random`), in any order, on any thread, after any resume.

Rows lie at random places of a memory that is far larger than the caches, and waiting for them is all the time that
drawing takes. So the kernels ask for the rows of a transition `AHEAD` transitions before they read them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from toolkit.data.jit import kernel, prefetch
from toolkit.data.random import below, draw, mix, stream
from toolkit.types import NO_RETURN, BoolArray, FloatArray, IntArray

# A packed row: transitions left | reward | terminated | Monte Carlo return | achieved goal (G) | obs (O) | action (A).
LEFT, REWARD, TERMINATED, RETURN, HEADER = 0, 1, 2, 3, 4
# Transitions left until the episode's final row: 0 marks that row itself, RUNNING an episode without end so far.
FINAL, RUNNING = 0.0, -1.0


# The functions below are copied into the kernels (inline="always") and have one way out of each loop: otherwise numba
# counts references to arrays within, and its atomic counters keep the processor from waiting for many rows at once.
AHEAD = 32
LINE = 16  # float32 numbers in what memory hands out at once
_STREAM = np.uint64(0xBF58476D1CE4E5B9)  # makes the choice of the stream independent of the place in it
_ATTEMPTS = 1 << 17  # rows picked for one place in a batch before it is given up
_TAIL = 1 << 18  # numbers of a row's stream from here on choose the actions behind the end of its episode


@numba.njit(inline="always")
def copy(to: Any, y: Any, source: Any, x: Any, n: Any) -> None:
    """n numbers of `source` from x into `to` from y."""
    # Unsigned indices cannot be negative, which lets the compiler use vector instructions.
    yy, xx = np.uintp(y), np.uintp(x)
    for c in range(np.uintp(n)):
        to[yy + c] = source[xx + c]


@numba.njit(inline="always")
def pick(key: Any, b: Any, attempt: Any, size: Any, first: Any, count: Any) -> Any:
    """Stream and place of a row, uniform over `count` streams and the rows written in the one drawn."""
    bits = draw(key, b, attempt)
    k = first + below(mix(bits ^ _STREAM), count)
    return k, below(bits, size[k])


@numba.njit(inline="always")
def _left(flat: Any, k: Any, i: Any, shape: Any, head: Any, chunk: Any, cut: Any) -> Any:
    """Transitions from row (k, i) to the end of its episode, or to the newest one where it still runs.

    With `cut` as many as a chunk takes where the task ends within it: no value is missing then.
    """
    _, capacity, W = shape
    left, run = np.int64(flat[(k * capacity + i) * W + LEFT]), head[k] - i
    run += capacity * (run <= 0)
    left += (run - left) * (left < 0)
    if cut & (left > 0) & (left < chunk):
        last = i + left - 1
        last -= capacity * (last >= capacity)
        left += (chunk - left) * (flat[(k * capacity + last) * W + TERMINATED] != 0.0)
    return left


@numba.njit(inline="always")
def settle(
    key: Any, b: Any, k: Any, i: Any, flat: Any, shape: Any, size: Any, head: Any, first: Any, count: Any,
    chunk: Any, cut: Any,
) -> Any:  # fmt: skip
    """The row (k, i) that was picked for b or, while fewer than `chunk` transitions follow it, the next that is picked.

    Returns it and what follows it, as `_left` counts.
    """
    attempt, left = 0, _left(flat, k, i, shape, head, chunk, cut)
    while (left < chunk) & (attempt < _ATTEMPTS):
        attempt += 1
        k, i = pick(key, b, attempt, size, first, count)
        left = _left(flat, k, i, shape, head, chunk, cut)
    return k, i, left


@numba.njit(inline="always")
def ask(flat: Any, x: Any, W: Any, n_step: Any, chunk: Any) -> None:
    """Prefetch the rows of a transition that begins at flat[x]: first and last in whole, the header of the others.

    In a chunk the actions of the others too.
    """
    for j in range(1, n_step):
        prefetch(flat, x + j * W)
    for j in range(2, chunk + 1):
        prefetch(flat, x + j * W - 1)
    for c in range(0, W, LINE):
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
def write(
    to: Any, y: Any, flat: Any, k: Any, i: Any, shape: Any, z: Any, O: Any, A: Any, chunk: Any,
    taken: Any, reward: Any, discount: Any,
) -> None:  # fmt: skip
    """One row of a batch up to its scalars: the transition at (k, i), the observation after it at flat[z].

    Its `chunk` actions stand side by side, as far as the episode goes; of those that follow only the first is written.
    """
    _, capacity, W = shape
    x, wide = (k * capacity + i) * W, O + chunk * A
    copy(to, y, flat, x + W - O - A, O + A)
    for j in range(1, chunk):
        i = i + 1 if i + 1 < capacity else 0
        copy(to, y + O + j * A, flat, (k * capacity + i) * W + W - A, A)
    copy(to, y + wide, flat, z + W - O - A, O + A)
    to[y + 2 * wide], to[y + 2 * wide + 1], to[y + 2 * wide + 2] = reward, discount, flat[x + RETURN]
    if chunk > 1:
        to[y + 2 * wide + 3] = taken


@kernel
def fill_steps(
    out: FloatArray, begin: IntArray, end: IntArray, rows: FloatArray, size: IntArray, head: IntArray,
    streams_per_seed: int, seeds: IntArray, step0: int, n_step: int, gamma: float, O: int, A: int, G: int, chunk: int,
) -> int:  # fmt: skip
    """Draw transitions of up to `n_step` steps into rows begin[u, s] to end[u, s] of each batch in `out` (U, S, B, WO).

    `rows` is (streams, capacity, W) in the layout of `replay`; stream k holds size[k] written rows.
    Seed s reads streams [s * streams_per_seed, (s + 1) * streams_per_seed), or stream 0 alone when
    `streams_per_seed` is 0 (one data set shared by all seeds). A window shortens at the end of its episode:
    the final row of an episode carries no transition, so nothing crosses it. The policy's goal is the row's own: the
    last G numbers of its observation.

    Only rows are drawn that `chunk` transitions follow in the same episode, or fewer of which the last ends the task:
    nothing depends on the actions after it, and those of random rows stand for them. Where `chunk` is above 1 the
    number of those that were taken is a fourth scalar. Returns how many places of the batches found none.
    """
    U, S, B, WO = out.shape
    K, capacity, W = rows.shape
    flat, to = rows.reshape(K * capacity * W), out.reshape(U * S * B * WO)
    chosen = np.empty((2, B), np.int64)
    count, missing = np.uint64(max(streams_per_seed, 1)), 0
    for u in range(U):
        for s in range(S):
            key, first = stream(seeds[s], step0 + u), s * streams_per_seed
            for t in range(begin[u, s], end[u, s] + AHEAD):
                if t < end[u, s]:
                    k, i = pick(key, t, 0, size, first, count)
                    chosen[0, t], chosen[1, t] = k, i
                    ask(flat, (k * capacity + i) * W, W, n_step, chunk)
                b = t - AHEAD
                if b >= begin[u, s]:
                    k, i = chosen[0, b], chosen[1, b]
                    k, i, left = settle(key, b, k, i, flat, rows.shape, size, head, first, count, chunk, True)
                    missing += left < chunk
                    reward, discount, z = _walk(flat, k, i, rows.shape, n_step, gamma)
                    y = ((u * S + s) * B + b) * WO
                    ahead = np.int64(flat[(k * capacity + i) * W + LEFT])
                    taken = ahead if 0 < ahead < chunk else chunk
                    write(to, y, flat, k, i, rows.shape, z, O, A, chunk, taken, reward, discount)
                    for j in range(taken, chunk):
                        k, i = pick(key, b, _TAIL + j, size, first, count)
                        i -= flat[(k * capacity + i) * W + LEFT] == FINAL  # which carries no action
                        i += capacity * (i < 0)
                        copy(to, y + O + j * A, flat, (k * capacity + i) * W + W - A, A)
                    copy(to, y + 2 * (O + chunk * A) + 3 + (chunk > 1), to, y + O - G, G)
    return missing


@kernel
def push_steps(
    rows: FloatArray, size: IntArray, head: IntArray, begun: IntArray, obs: FloatArray, action: FloatArray,
    reward: FloatArray, next_obs: FloatArray, achieved: FloatArray, next_achieved: FloatArray, terminated: BoolArray,
    truncated: BoolArray, gamma: float, cut_value: float,
) -> None:  # fmt: skip
    """Append one transition to each stream; arguments are (streams, ...).

    The row after the newest transition always holds its next observation marked FINAL. The next transition of
    the same episode overwrites that row with itself, so a reader needs to know nothing of the write position.
    A finished episode keeps its final row, and its Monte Carlo returns and lengths are written backwards.
    """
    K, capacity, W = rows.shape
    O, A, G = obs.shape[1], action.shape[1], achieved.shape[1]
    flat = rows.reshape(K * capacity * W)
    for k in range(K):
        h = head[k]
        x = (k * capacity + h) * W
        flat[x + LEFT], flat[x + REWARD], flat[x + RETURN] = RUNNING, reward[k], NO_RETURN
        flat[x + TERMINATED] = 1.0 if terminated[k] else 0.0
        copy(flat, x + HEADER, achieved[k], 0, G)
        copy(flat, x + HEADER + G, obs[k], 0, O)
        copy(flat, x + HEADER + G + O, action[k], 0, A)
        h = (h + 1) % capacity
        x = (k * capacity + h) * W
        for c in range(W):
            flat[x + c] = 0.0
        copy(flat, x + HEADER, next_achieved[k], 0, G)
        copy(flat, x + HEADER + G, next_obs[k], 0, O)
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
