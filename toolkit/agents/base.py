"""What every agent is: a frozen configuration and pure functions on an explicit state (level 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from toolkit.agents.configs import AgentConfig
from toolkit.types import Batch, BoolArray, FloatArray, Json, Metrics, Spec

State = TypeVar("State")


class Agent(ABC, Generic[State]):
    """One algorithm on one kind of task.

    An agent holds no tensors: `init` makes the state of one seed, `update` maps a state and a batch to the next
    state, and `torch.vmap` adds the seed axis from outside. The class attributes say what it is for; `toolkit list
    agents` prints them and a pipeline is checked against them.
    """

    Config: ClassVar[type[AgentConfig]]
    summary: ClassVar[str] = ""
    """When to use it, in one line."""
    offline: ClassVar[bool] = True
    """Whether it can be trained on recorded data alone."""
    online: ClassVar[bool] = True
    """Whether it can be trained in the simulator."""
    goals: ClassVar[bool] = False
    """Whether it needs a task whose policy sees its goal; every agent works on such tasks."""
    discrete: ClassVar[bool] = False
    """Whether actions may be one of several choices."""
    continuous: ClassVar[bool] = True
    """Whether actions may be numbers."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Optional fields of a batch that it reads."""
    carries: ClassVar[Mapping[str, str]] = {}
    """At the seam: networks of this agent that take over an offline network of another name."""
    policies: ClassVar[tuple[str, ...]] = ("pi",)
    """Networks that its actions come from: those that a guard slows down."""

    def __init__(self, cfg: Any, spec: Spec) -> None:
        self.cfg = cfg
        self.spec = spec

    @classmethod
    def about(cls) -> Json:
        """What it is for, as `toolkit list agents --json` prints it."""
        flags = {name: getattr(cls, name) for name in ("offline", "online", "goals", "discrete", "continuous")}
        return flags | {"needs": sorted(cls.needs), "summary": cls.summary}

    @property
    def frequencies(self) -> tuple[float, ...]:
        """Of the Fourier features; none where the task is played in no maze."""
        return self.cfg.fourier if self.spec.position_dim else ()

    @property
    def input_dim(self) -> int:
        """Numbers that the networks see of an observation."""
        return self.spec.obs_dim + 2 * len(self.frequencies) * (self.spec.position_dim + self.spec.goal_dim)

    def features(self, obs: Tensor) -> Tensor:
        """What the networks see of observations, (..., O) -> (..., input_dim): them and waves of the places in them.

        `update`, `act` and `q` expect it; who calls them applies it, so that algorithms need not know.
        """
        if not self.frequencies:
            return obs
        position, goal = self.spec.position_dim, self.spec.goal_dim
        places = torch.cat([obs[..., :position], obs[..., obs.shape[-1] - goal :]], -1) if goal else obs[..., :position]
        return torch.cat([obs, *self.waves(places)], -1)

    def waves(self, places: Tensor) -> list[Tensor]:
        """Sine and cosine of `places` at each frequency, all of its shape."""
        return [wave(f * places) for f in self.frequencies for wave in (torch.sin, torch.cos)]

    def aimed(self, seen: Tensor, aim: Tensor) -> Tensor:
        """The states of `seen` with the goals of `aim`, all as the networks see them, (..., input_dim)."""
        position, goal = self.spec.position_dim, self.spec.goal_dim
        sizes = [self.spec.obs_dim] + [position + goal] * 2 * len(self.frequencies)
        pairs = zip(seen.split(sizes, -1), aim.split(sizes, -1), strict=True)
        return torch.cat(
            [part for s, a in pairs for part in (s[..., : s.shape[-1] - goal], a[..., a.shape[-1] - goal :])], -1
        )

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers that one row of an update consumes."""
        return 0

    @property
    def act_noise_dim(self) -> int:
        """Standard normal numbers that one action consumes."""
        return self.spec.action_dim

    @property
    def chunk(self) -> int:
        """Actions it decides on at once, played in a row: the task's stand side by side in one of `spec` then."""
        return getattr(self.cfg, "chunk", 1)

    @property
    def waypoint_steps(self) -> int:
        """Steps ahead of a row that its waypoint lies; 0 for an agent without waypoints."""
        return 0

    @property
    def policy_every(self) -> int:
        """Updates for each one of the policy (TD3's delay): the loops make the others with `update_critic`."""
        return 1

    def keep(self, returns: FloatArray, success: BoolArray) -> BoolArray:
        """Mask of the data set's episodes to train on; all three arrays are (E,)."""
        return np.ones(len(returns), np.bool_)

    @abstractmethod
    def init(self, generator: torch.Generator) -> State:
        """Fresh state of one seed."""

    @abstractmethod
    def update(self, st: State, b: Batch) -> tuple[State, Metrics]:
        """One gradient step of every network."""

    def update_critic(self, st: State, b: Batch) -> tuple[State, Metrics]:
        """The critic's share of `update`: what runs more often than once where utd is above 1."""
        return self.update(st, b)

    @abstractmethod
    def act(self, st: State, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions in [-1, 1], (..., N, O), (..., N, act_noise_dim) -> (..., N, A); zero noise gives the greedy ones.

        The leading axes, those of the seeds, are the state's too: an ensemble of critics is asked for
        `obs.unsqueeze(-3)`, which makes room for its members behind them.
        """

    def q(self, st: State, obs: Tensor, action: Tensor) -> Tensor:
        """The agent's estimate of the return, (B, O), (B, A) -> (B,); NaN where it keeps none."""
        return torch.full(obs.shape[:-1], float("nan"), device=obs.device)
