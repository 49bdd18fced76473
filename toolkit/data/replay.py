"""Packed storage of transitions and the batches drawn from it (level 1).

One transition is one float32 row, so that drawing it touches one place in memory:

    transitions left | reward | terminated | Monte Carlo return | achieved goal (G) | obs (O) | action (A)

An episode of T transitions takes T + 1 rows; the last one, with no transition left, holds its final observation.
The next observation of a transition is therefore the observation of the row after it, stored once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from toolkit.data.goals import fill_goals
from toolkit.data.random import fill_noise
from toolkit.data.sampler import FINAL, HEADER, LEFT, TERMINATED, fill_steps, push_steps
from toolkit.types import Batch, BoolArray, Episodes, FloatArray, IntArray, Spec, ToolkitError


class Normalizer(NamedTuple):
    """Shift and scale of observations, fitted on the data set and frozen from then on."""

    mean: FloatArray  # (O,)
    std: FloatArray  # (O,)

    @classmethod
    def fit(cls, parts: Iterable[FloatArray]) -> Normalizer:
        """Mean and standard deviation of the rows of all parts, (R, O) each; a constant column keeps scale 1."""
        mean, var, rows = np.zeros(()), np.zeros(()), 0
        for obs in parts:  # merged as Chan, Golub and LeVeque do; of one part the numbers are its own to the last bit
            rows += len(obs)
            share, further = len(obs) / rows, obs.mean(0, dtype=np.float64) - mean
            var = (1 - share) * var + share * obs.var(0, dtype=np.float64) + share * (1 - share) * further**2
            mean = mean + share * further
        std = np.sqrt(var)
        return cls(mean.astype(np.float32), np.where(std < 1e-6, 1.0, std).astype(np.float32))

    def __call__(self, obs: FloatArray) -> FloatArray:
        """Normalised observations, (..., O) float32."""
        return ((obs - self.mean) / self.std).astype(np.float32)


@dataclass(frozen=True)
class Goals:
    """Shares of where a row's goal comes from; what they leave is what a random row of its stream achieved."""

    own: float = 0.0  # the recorded one
    current: float = 0.0  # what the row's own step achieves
    future: float = 0.0  # what the episode achieves some steps later
    uniform: bool = False  # each of these steps is as likely as any other; else geometric, mean 1 / (1 - gamma)

    def sums(self) -> list[float]:
        """The shares as running sums, and whether later steps are uniform."""
        return [self.own, self.own + self.current, self.own + self.current + self.future, float(self.uniform)]


@dataclass(frozen=True)
class Relabel:
    """How goals are drawn anew, for the values and for the policy (None: the same goal).

    `radius`, `step_reward` and `goal_reward` are the task's rule, in the units of the achieved goals.
    """

    value: Goals
    radius: float
    step_reward: float
    goal_reward: float
    policy: Goals | None = None


@dataclass
class Replay:
    """Rows in one or more streams; within a stream transitions follow one another in time.

    A data set is one stream shared by all seeds (`streams_per_seed` 0). An online buffer has one ring for each
    environment of each seed.
    """

    spec: Spec
    rows: FloatArray  # (K, capacity, 4 + G + O + A)
    size: IntArray  # (K,) rows written
    head: IntArray  # (K,) where the next transition goes
    begun: IntArray  # (K,) transitions of the unfinished episode
    streams_per_seed: int

    @classmethod
    def from_episodes(cls, episodes: Episodes, inputs: FloatArray, gamma: float, cut_value: float = 0.0) -> Replay:
        """Pack episodes with their normalised policy inputs (R, O). Raises ToolkitError when there are no rows.

        `cut_value` counts in the Monte Carlo returns as what follows an episode that stopped without terminating.
        """
        R, O = inputs.shape
        if R >= 2**32 or R == 0:
            raise ToolkitError(f"a data set of {R} rows; between 1 and 2^32 - 1 can be sampled")
        left = np.repeat(episodes.starts[1:] - 1, np.diff(episodes.starts)) - np.arange(R)
        cut = (left == 1) & ~episodes.terminated
        returns = discounted_returns(episodes.reward + gamma * cut_value * cut, left, gamma)
        header = [x[:, None] for x in (left, episodes.reward, episodes.terminated, returns)]
        columns = [*header, episodes.achieved, inputs, episodes.action]
        rows = np.concatenate(columns, axis=1, dtype=np.float32, casting="unsafe")[None]
        full = np.array([R], np.int64)
        return cls(Spec(O, episodes.action.shape[1]), rows, full, full * 0, full * 0, streams_per_seed=0)

    @classmethod
    def ring(cls, spec: Spec, achieved_dim: int, seeds: int, envs: int, capacity: int) -> Replay:
        """Empty rings for `envs` environments of each seed, `capacity` transitions a seed.

        A finished episode keeps its final row too, so that of many short ones fewer transitions are held.
        """
        K, rows = seeds * envs, max(capacity // envs, 2) + 1
        size, head, begun = (np.zeros(K, np.int64) for _ in range(3))
        packed = np.zeros((K, rows, HEADER + spec.obs_dim + spec.action_dim + achieved_dim), np.float32)
        return cls(spec, packed, size, head, begun, streams_per_seed=envs)

    def begins(self, chunk: int, cut: bool = True) -> BoolArray:
        """Rows that a chunk can be drawn from, (K, rows written): so many transitions follow in their episode.

        With `cut` fewer do where the last one ends the task.
        """
        capacity, rows = self.rows.shape[1], np.arange(int(self.size.max()))
        left = self.rows[:, : len(rows), LEFT].astype(np.int64)
        left = np.where(left < FINAL, (self.head[:, None] - rows - 1) % capacity + 1, left)
        last = (rows + left - 1) % capacity
        ends = np.take_along_axis(self.rows[..., TERMINATED], last, 1) != 0.0
        return np.asarray((left >= chunk) | (cut & ends & (left > 0)))

    def holds(self, chunk: int, cut: bool = True) -> bool:
        """Whether every seed has a row that a chunk can be drawn from, as `begins` says."""
        found = self.begins(chunk, cut).any(1)
        return bool(found.reshape(-1, max(self.streams_per_seed, 1)).any(1).all())

    def at(self, step: int) -> Replay:
        """What there is to draw from at an update: all of it, always."""
        return self

    def written(self) -> int:
        """Rows that one seed can draw from, final rows included."""
        return int(self.size[: max(self.streams_per_seed, 1)].sum())

    def unrolled(self) -> tuple[FloatArray, IntArray]:
        """The rows of a buffer in time, stream after stream, (R, W), and where its episodes start, (E + 1,).

        An episode that still runs ends with its newest row; of one that is partly overwritten the rest is there.
        """
        parts, capacity = [], self.rows.shape[1]
        for rows, size, head, begun in zip(self.rows, self.size, self.head, self.begun, strict=True):
            oldest = (head + (begun > 0)) % capacity if size == capacity else 0
            ordered = np.roll(rows, -oldest, axis=0)[:size]
            left = ordered[:, LEFT] == FINAL
            parts.append(ordered[int(np.argmin(left)) :])  # a final row without its episode says nothing
        whole = np.concatenate(parts)
        ends = np.flatnonzero(whole[:, LEFT] == FINAL) + 1
        return whole, np.concatenate([[0], ends]).astype(np.int64)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays that `restore` needs."""
        rows = self.rows[:, : int(self.size.max())].copy()
        return {"rows": rows, "size": self.size, "head": self.head, "begun": self.begun}

    def restore(self, tensors: Mapping[str, npt.ArrayLike]) -> None:
        """Go back to a saved moment."""
        rows = np.asarray(tensors["rows"])
        self.rows[:, : rows.shape[1]] = rows
        for name in ("size", "head", "begun"):
            getattr(self, name)[:] = np.asarray(tensors[name])


def discounted_returns(reward: FloatArray, left: IntArray, gamma: float) -> FloatArray:
    """Discounted reward to the end of each recorded episode, (R,); 0 on final rows."""
    returns = np.zeros(len(reward), np.float64)
    total = 0.0
    for i in range(len(reward) - 1, -1, -1):
        total = 0.0 if left[i] == 0 else reward[i] + gamma * total
        returns[i] = total
    return returns.astype(np.float32)


class Sampler:
    """Draws `updates` batches for all seeds at once into one preallocated array.

    Rows [0, k) of a batch come from `offline`, the rest from `online`; k is the caller's, for each update (U,) or for
    each update and seed (U, S).
    `relabel` draws goals anew; the last columns of the policy input then hold the goal, scaled by `normalizer`, and a
    batch may hold the `waypoint` so many steps ahead.

    With `chunk` above 1 an action of `spec` is so many recorded ones in a row (Q-chunking, arXiv:2507.07969): only
    rows are drawn that so many transitions follow in their episode, each as likely as any other, whatever its place in
    the chunk that was played. `n_step` is then the chunk's length, so that the value after it is that of the next look.
    Where the task ends sooner the row is drawn too, with random recorded actions for those that were not taken: zeros
    would tell what was to happen, and to leave out what ended makes the values of the rest too high; `taken` says how
    many were, for who imitates. With goals drawn anew the end is another goal's, and only whole chunks are drawn.

    `mc_return` is the recorded return, which knows nothing of goals drawn anew; in a ring it is `NO_RETURN` until the
    episode has ended. `next_action` is 0 where none was recorded, and holds the first of a chunk only.
    """

    def __init__(
        self,
        spec: Spec,
        seeds: IntArray,
        batch_size: int,
        noise_dim: int,
        n_step: int,
        gamma: float,
        updates: int,
        relabel: Relabel | None = None,
        normalizer: Normalizer | None = None,
        chunk: int = 1,
        waypoint: int = 0,
    ) -> None:
        assert relabel is not None or not waypoint
        assert chunk in (1, n_step)
        self.spec, self.seeds, self.n_step, self.gamma = spec, seeds, n_step, gamma
        self.batch_size, self.noise_dim, self.relabel, self.normalizer = batch_size, noise_dim, relabel, normalizer
        self.chunk, self.waypoint = chunk, waypoint
        ahead = (chunk > 1) + spec.goal_dim + (spec.obs_dim if waypoint else 0)
        self.noise_column = 2 * (spec.obs_dim + spec.action_dim) + 3 + ahead
        width = self.noise_column + noise_dim
        self.packed = torch.zeros((updates, len(seeds), batch_size, width), dtype=torch.float32)
        self._out: FloatArray = self.packed.numpy()

    def draw(
        self,
        step: int,
        offline: Replay | None,
        online: Replay | None,
        offline_rows: IntArray,
        updates: int | None = None,
    ) -> torch.Tensor:
        """Batches for steps [step, step + updates), (U, S, B, W); overwritten by the next call.

        Raises ToolkitError where no row has as many transitions ahead as a chunk needs.
        """
        U = len(self._out) if updates is None else updates
        out = self._out[:U]
        zero, split = np.zeros(out.shape[:2], np.int64), np.zeros(out.shape[:2], np.int64)
        split.T[:] = np.clip(offline_rows[:U], 0, self.batch_size).T
        full = zero + self.batch_size
        for replay, begin, end in ((offline, zero, split), (online, split, full)):
            if replay is not None and (end > begin).any() and self._fill(out, begin, end, replay, step):
                raise ToolkitError(
                    f"no episode to draw from has {self.chunk} transitions, as many as config.chunk; make it smaller"
                )
        if self.noise_dim:
            fill_noise(out, self.noise_column, self.seeds, step)
        return self.packed[:U]

    def _fill(self, out: FloatArray, begin: IntArray, end: IntArray, replay: Replay, step: int) -> int:
        """Rows from one source; the number of places that found none."""
        O, A, shown = self.spec.obs_dim, self.spec.action_dim // self.chunk, self.spec.goal_dim
        where = (out, begin, end, replay.rows, replay.size, replay.head, replay.streams_per_seed, self.seeds, step)
        how = (self.n_step, self.gamma, O, A, shown, self.chunk)
        rule = self.relabel
        if rule is None:
            return int(fill_steps(*where, *how))
        G = replay.rows.shape[-1] - HEADER - O - A
        normalizer = self.normalizer or Normalizer(np.zeros(O, np.float32), np.ones(O, np.float32))
        shares = np.array([rule.value.sums(), (rule.policy or rule.value).sums()], np.float32)
        return int(
            fill_goals(
                *where, *how, self.waypoint, shares, rule.policy is not None and shown > 0,
                rule.radius, rule.step_reward, rule.goal_reward, normalizer.mean[-G:], normalizer.std[-G:],
            )
        )  # fmt: skip


def push(
    ring: Replay, obs: FloatArray, action: FloatArray, reward: FloatArray, next_obs: FloatArray, achieved: FloatArray,
    next_achieved: FloatArray, terminated: BoolArray, truncated: BoolArray, gamma: float, cut_value: float = 0.0,
) -> None:  # fmt: skip
    """Append one transition to every ring; arrays are (K, ...). For `cut_value` see `Replay.from_episodes`."""
    push_steps(
        ring.rows, ring.size, ring.head, ring.begun, obs, action, reward, next_obs, achieved, next_achieved,
        terminated, truncated, gamma, cut_value,
    )  # fmt: skip


def unpack(packed: torch.Tensor, lr_scale: torch.Tensor, spec: Spec, waypoint: bool = False, chunk: int = 1) -> Batch:
    """Name the columns of packed batches (..., B, W)."""
    O, A, G = spec.obs_dim, spec.action_dim, spec.goal_dim
    widths = [O, A, O, A, 1, 1, 1, int(chunk > 1), G, O * waypoint]
    parts = packed.split([*widths, packed.shape[-1] - sum(widths)], -1)
    obs, action, next_obs, next_action, reward, discount, mc_return, taken, goal, ahead, noise = parts
    reward, discount, mc_return = (x.squeeze(-1) for x in (reward, discount, mc_return))
    policy_obs = torch.cat([obs[..., : O - G], goal], -1) if G else obs
    return Batch(
        obs, action, reward, discount, next_obs, mc_return, next_action, policy_obs, ahead, noise, lr_scale,
        taken.squeeze(-1) if chunk > 1 else None,
    )  # fmt: skip
