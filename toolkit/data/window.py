"""A recording of any size that passes through memory (level 1).

The rows in memory are a ring. The recording is cut into blocks of whole episodes, whose order is drawn anew for each
epoch; with every update as many rows come as a seed draws, episode by episode, over what has been there longest, and
the next block is read meanwhile. So each row stays for equally many updates, to within an episode's share of the ring,
and while it is there it is as likely to be drawn as any other. What the ring holds depends on the step alone: a resumed
run finds what the first one had.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from toolkit.data.replay import Replay
from toolkit.data.sampler import FINAL, LEFT
from toolkit.types import FloatArray, IntArray, ToolkitError

BLOCKS = 16  # in the ring, about: the more, the better mixed it is


class _Block(NamedTuple):
    """One block where it comes in the endless sequence of epochs."""

    place: int  # blocks before it
    begin: int  # rows before it
    rows: FloatArray  # (size, width)

    def end(self, target: int) -> int:
        """Rows of the sequence up to the last episode of the block that ends within `target` rows."""
        ends = np.flatnonzero(self.rows[: max(target - self.begin, 0), LEFT] == FINAL)
        return self.begin + (int(ends[-1]) + 1 if len(ends) else 0)


class Window:
    """The blocks of a recording passing through a ring of `rows` rows; `at` is what `Replay.at` is.

    `sizes` (B,) are the rows of each block, and `pack` makes one. A seed draws `batch_size` rows an update, so that an
    epoch is as many updates as the recording has batches.
    """

    def __init__(self, sizes: IntArray, pack: Callable[[int], Replay], rows: int, batch_size: int) -> None:
        if rows < sizes.max():
            raise ToolkitError(
                f"window.rows: expected at least {sizes.max():,}, for the longest episodes; got {rows:,}"
            )
        self._sizes, self._pack, self._batch_size = sizes, pack, batch_size
        self._order = lru_cache(2)(self._drawn)
        like, full = pack(0), np.array([rows], np.int64)
        packed = np.zeros((1, rows, like.rows.shape[-1]), np.float32)
        self._ring = Replay(like.spec, packed, full, full * 0, full * 0, streams_per_seed=0)
        self._end = 0  # rows that have come
        self._block = self._read(0)
        self._reader = ThreadPoolExecutor(1, "recording")
        self._next: Future[_Block] = self._reader.submit(self._read, 1)

    def written(self) -> int:
        """Rows of the whole recording."""
        return int(self._sizes.sum())

    def at(self, step: int) -> Replay:
        """What there is to draw from at an update; the same memory at every call."""
        capacity = self._ring.rows.shape[1]
        target = capacity + int(self._sizes.max()) + step * self._batch_size  # so that the ring is full from the start
        if not self._end <= target <= self._end + capacity:
            self._refill(target)
        while self._block.begin + len(self._block.rows) <= target:
            self._take(self._block.begin + len(self._block.rows))
            self._block = self._next.result()
            self._next = self._reader.submit(self._read, self._block.place + 1)
        self._take(self._block.end(target))
        return self._ring

    def _refill(self, target: int) -> None:
        """The ring with the newest rows at `target`, from the newest block back."""
        block = self._block = self._read(self._place(target))
        self._next = self._reader.submit(self._read, block.place + 1)
        self._end = block.end(target)
        oldest = self._end - self._ring.rows.shape[1]
        while True:
            self._put(max(oldest, block.begin), block.rows[max(oldest - block.begin, 0) : self._end - block.begin])
            if block.begin <= oldest:
                break
            block = self._read(block.place - 1)
        self._ring.head[0] = self._end % self._ring.rows.shape[1]

    def _take(self, end: int) -> None:
        """The block's rows up to the sequence's `end`-th; those before have come."""
        begin = self._block.begin
        self._put(self._end, self._block.rows[self._end - begin : end - begin])
        self._end = max(end, self._end)
        self._ring.head[0] = self._end % self._ring.rows.shape[1]

    def _put(self, row: int, rows: FloatArray) -> None:
        """Write rows, of which the first is the sequence's `row`-th, where they belong in the ring."""
        ring = self._ring.rows[0]
        begin = row % len(ring)
        before = min(len(rows), len(ring) - begin)
        ring[begin : begin + before] = rows[:before]
        ring[: len(rows) - before] = rows[before:]

    def _read(self, place: int) -> _Block:
        """The block that comes after `place` others."""
        epoch, at = divmod(place, len(self._sizes))
        order = self._order(epoch)
        begin = epoch * self.written() + int(self._sizes[order[:at]].sum())
        return _Block(place, begin, self._pack(int(order[at])).rows[0])

    def _place(self, row: int) -> int:
        """Blocks before the one with the sequence's `row`-th row."""
        epoch, rest = divmod(row, self.written())
        ends = np.cumsum(self._sizes[self._order(epoch)])
        return epoch * len(ends) + int(np.searchsorted(ends, rest, side="right"))

    def _drawn(self, epoch: int) -> IntArray:
        return np.random.Generator(np.random.Philox(key=epoch)).permutation(len(self._sizes))


Recording: TypeAlias = Replay | Window
