"""Which action comes now, where a policy decides on several in a row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolkit.types import FloatArray, IntArray, ToolkitError


class Chunks:
    """Actions one at a time, in N lanes, of a policy that decides on one or on several: these it plays without looking.

    It is asked where an episode begins and where all it had decided on is played. What is wider than an action of the
    task, A numbers, is a chunk. All that a resume needs is `pending`.
    """

    def __init__(self, action_dim: int, pending: FloatArray | None = None) -> None:
        self.action_dim = action_dim
        self.pending = pending  # (N, h A) the chunks that are being played; None where h is 1

    def now(self, steps: IntArray, ask: Callable[[], FloatArray]) -> FloatArray:
        """The action of each lane, (N, A), after so many `steps` of its episode, (N,); `ask` gives (N, h A).

        Raises ToolkitError where that is no whole number of actions.
        """
        if self.pending is None or not (steps % self._length(self.pending)).all():
            fresh = ask()
            if fresh.shape[1] == self.action_dim:
                return fresh
            due = steps[:, None] % self._length(fresh) == 0
            self.pending = fresh if self.pending is None else np.where(due, fresh, self.pending)
        length = self._length(self.pending)
        chosen: FloatArray = self.pending.reshape(len(steps), length, -1)[np.arange(len(steps)), steps % length]
        return chosen

    def _length(self, chunks: FloatArray) -> int:
        width = int(chunks.shape[1])
        length, rest = divmod(width, self.action_dim)
        if rest:
            raise ToolkitError(
                f"the policy gives {width} numbers; an action of this task has {self.action_dim}, a chunk a "
                "whole number of actions"
            )
        return length
