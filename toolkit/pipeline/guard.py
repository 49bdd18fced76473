"""The guard of an online stage: a seed that falls goes back to its best evaluation and on more gently.

Seeds are guarded apart: state, policy's learning rate and share of the recording are each seed's own. What the
simulator showed stays in the buffer, and environment steps are counted on. Of equal evaluations the later one is the
best: its critics have seen more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from toolkit import checkpoint
from toolkit.learner import Learner
from toolkit.pipeline.blocks import GuardRule
from toolkit.tensor_file import Leaf
from toolkit.types import FloatArray, Json

KEPT = "guard/"  # before the names of its tensors in a checkpoint


class Guard:
    """What one stage's guard remembers; `judge` is told of each evaluation.

    Where nothing of the recording is kept (`recorded` False) a roll-back asks for no share of it.
    """

    def __init__(self, rule: GuardRule, learner: Learner, recorded: bool = True) -> None:
        seeds = len(learner.seeds)
        self.rule, self.learner, self.least = rule, learner, rule.offline if recorded else 0.0
        self.best, self.best_step = [-1.0] * seeds, [0] * seeds
        self.recent: list[list[float]] = [[] for _ in range(seeds)]  # since the seed's last roll-back
        self.lr, self.offline = [1.0] * seeds, [0.0] * seeds
        self.log: list[Json] = []  # a line for each roll-back
        self.kept = pytree.tree_map(torch.clone, learner.state)  # each seed's state at its best evaluation

    def judge(self, step: int, success: Sequence[float]) -> list[Json]:
        """Keep what is best, roll back what has fallen; a line for each roll-back.

        A seed is rolled back once at a step: an evaluation played again there changes nothing.
        """
        if self.log and self.log[-1]["step"] == step:
            return []
        fallen = [self._fallen(seed, step, float(value)) for seed, value in enumerate(success)]
        self.kept = _choose([at == step for at in self.best_step], self.learner.state, self.kept)
        lines = [self._gentler(seed, step) for seed, fell in enumerate(fallen) if fell]
        if lines:
            self.learner.state = _choose(fallen, self.kept, self.learner.state)
            self.learner.slow_policies(self.lr)
        self.log += lines
        return lines

    def share(self, share: Callable[[int, int], float]) -> Callable[[int, int], FloatArray]:
        """The mixing policy with each seed's least share of the recording, (S,)."""
        return lambda step, rows: np.maximum(share(step, rows), self.offline)

    def values(self) -> dict[str, list[float]]:
        """For the metrics: what the recipe is now, one number a seed."""
        return {"guard/lr_policy": list(self.lr), "guard/offline": list(self.offline)}

    def state(self) -> tuple[dict[str, Leaf], Json]:
        """Tensors by name and JSON that `restore` needs."""
        names = ("best", "best_step", "recent", "lr", "offline", "log")
        return checkpoint.flatten(self.kept, KEPT.rstrip("/")), {name: getattr(self, name) for name in names}

    def restore(self, tensors: dict[str, Tensor], meta: Json) -> None:
        """Go back to a saved moment."""
        for name, value in meta.items():
            setattr(self, name, value)
        found = {name.removeprefix(KEPT): leaf for name, leaf in tensors.items() if name.startswith(KEPT)}
        self.kept = pytree.tree_map(torch.clone, checkpoint.unflatten(found, self.kept))
        if self.log:
            self.learner.slow_policies(self.lr)

    def _fallen(self, seed: int, step: int, success: float) -> bool:
        if success >= self.best[seed]:
            self.best[seed], self.best_step[seed] = success, step
        recent = self.recent[seed] = [*self.recent[seed], success][-self.rule.over :]
        low = self.best[seed] - self.rule.drop - 1e-9
        # at its best the mean may still hold what was poor before
        return success < self.best[seed] and len(recent) == self.rule.over and float(np.mean(recent)) < low

    def _gentler(self, seed: int, step: int) -> Json:
        success, self.recent[seed] = float(np.mean(self.recent[seed])), []
        self.lr[seed] *= self.rule.lr_policy
        self.offline[seed] = self.least
        return {
            "step": step,
            "seed": self.learner.seeds[seed],
            "success": success,
            "best": self.best[seed],
            "best_step": self.best_step[seed],
            "lr_policy": self.lr[seed],
            "offline": self.offline[seed],
        }


def _choose(mask: list[bool], yes: Any, no: Any) -> Any:
    """Of two stacked states the first for the seeds in `mask` (S,), the second for the others."""

    def leaf(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(torch.tensor(mask, device=a.device).reshape(-1, *[1] * (a.dim() - 1)), a, b)

    return pytree.tree_map(leaf, yes, no)
