"""One rollout of every environment: what an on-policy agent learns from, once, and forgets (level 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from toolkit.data.random import fill_noise
from toolkit.types import BoolArray, FloatArray, Rollout, Spec


class RolloutBuffer:
    """T steps of N environments of each of S seeds, packed as (S, T, N, W)."""

    def __init__(self, spec: Spec, seeds: Sequence[int], steps: int, envs: int, noise_dim: int) -> None:
        self.seeds, self.steps, self.filled = np.asarray(seeds, np.int64), steps, 0
        self.noise_column = 2 * (spec.obs_dim + spec.action_dim) + 3
        self.packed = torch.zeros((len(seeds), steps, envs, self.noise_column + noise_dim))
        self._out: FloatArray = self.packed.numpy()

    @property
    def full(self) -> bool:
        """Whether all T steps are there."""
        return self.filled == self.steps

    def store(
        self, obs: FloatArray, action: FloatArray, next_obs: FloatArray, action_noise: FloatArray, reward: FloatArray,
        terminated: BoolArray, truncated: BoolArray, gamma: float,
    ) -> None:  # fmt: skip
        """Append one step of every environment; arrays are (S * N, ...), seed by seed."""
        scalars = [x[:, None] for x in (reward, gamma * ~terminated, terminated | truncated)]
        row = np.concatenate([obs, action, next_obs, action_noise, *scalars], 1)
        self._out[:, self.filled, :, : self.noise_column] = row.reshape(len(self.seeds), -1, self.noise_column)
        self.filled += 1

    def take(self, step: int) -> torch.Tensor:
        """The full rollout with the noise of update `step`, (S, T, N, W); overwritten by the next one."""
        S, _, _, W = self._out.shape
        if self.noise_column < W:
            fill_noise(self._out.reshape(1, S, -1, W), self.noise_column, self.seeds, step)
        self.filled = 0
        return self.packed

    def state(self) -> dict[str, FloatArray]:
        """Arrays that `restore` needs."""
        return {"rollout": self._out[:, : self.filled].copy()}

    def restore(self, tensors: Mapping[str, npt.ArrayLike]) -> None:
        """Go back to a saved moment."""
        begun = np.asarray(tensors["rollout"])
        self.filled = begun.shape[1]
        self._out[:, : self.filled] = begun


def unpack_rollout(packed: torch.Tensor, lr_scale: torch.Tensor, spec: Spec) -> Rollout:
    """Name the columns of a packed rollout (..., T, N, W)."""
    O, A = spec.obs_dim, spec.action_dim
    widths = [O, A, O, A, 1, 1, 1]
    parts = packed.split([*widths, packed.shape[-1] - sum(widths)], -1)
    obs, action, next_obs, action_noise, *scalars, noise = parts
    reward, discount, last = (x.squeeze(-1) for x in scalars)
    return Rollout(obs, action, next_obs, action_noise, reward, discount, last, noise, lr_scale)
