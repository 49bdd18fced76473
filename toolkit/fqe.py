"""Fitted Q evaluation: what a policy is worth by recorded data alone, without a simulator (level 3)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from toolkit.agents import Agent
from toolkit.agents.configs.base import AgentConfig, Polyak
from toolkit.data.replay import Normalizer, Replay
from toolkit.learner import Learner
from toolkit.nn import Net, Params, init_mlp, optimised, polyak, q_values
from toolkit.policy import Policy
from toolkit.train import Hooks, OfflinePlan, offline_loop
from toolkit.types import Batch, Episodes, FloatArray, Metrics, Progress, ToolkitError


class FQEConfig(AgentConfig):
    """Hyper-parameters of the evaluation."""

    lr: PositiveFloat = 1e-3
    """Learning rate of Q."""
    polyak: Polyak = 0.1
    """Share of Q mixed into its target at each update."""


class FQEState(NamedTuple):
    """The fitted network, and the state of the agent whose policy is judged, which never changes."""

    Q: Net
    Q_targ: Params
    judged: Any


class FQE(Agent[FQEState]):
    """Fitted Q evaluation (Le et al. 2019, arXiv:1903.08738), algorithm 3.

    y   = r + discount Q_targ(s', pi(s'))      pi is the judged policy without noise
    L_Q = E (Q(s, a) - y)^2

    Order: Q; Q_targ. Reads: Q <- Q_targ, pi.
    Deviations: the target follows slowly where the paper fits each one to the end; targets stay within the returns
    that the task's rewards allow.
    """

    Config = FQEConfig
    cfg: FQEConfig

    def __init__(self, cfg: FQEConfig, judged: Agent[Any], returns: tuple[float, float] | None = None) -> None:
        super().__init__(cfg, judged.spec)
        self.judged, self.returns = judged, returns or (-math.inf, math.inf)

    def init(self, generator: torch.Generator) -> FQEState:
        """A fresh network; the judged policy's state is to be put in its place.

        It begins at the worst return where that is known: who reaches the goal stands out first, and who does not is
        right from the start.
        """
        Q = init_mlp([self.input_dim + self.spec.action_dim, *self.cfg.hidden, 1], generator)
        if math.isfinite(self.returns[0]):
            last = f"b{len(self.cfg.hidden)}"
            Q[last] = torch.full_like(Q[last], self.returns[0])
        return FQEState(optimised(Q), Q, self.judged.init(generator))

    def update(self, st: FQEState, b: Batch) -> tuple[FQEState, Metrics]:
        """Q, then its target."""
        still = torch.zeros((*b.next_obs.shape[:-1], self.judged.act_noise_dim), device=b.obs.device)
        after = q_values(st.Q_targ, b.next_obs, self.act(st, b.next_obs, still))
        y = (b.reward + b.discount * after).clamp(*self.returns)

        def loss(p: Params) -> tuple[Tensor, Metrics]:
            value = ((q_values(p, b.obs, b.action) - y) ** 2).mean()
            return value, {"loss/Q": value.detach()}

        Q, metrics = st.Q.descend(loss, self.cfg.lr * b.lr_scale)
        return FQEState(Q, polyak(st.Q_targ, Q.p, self.cfg.polyak), st.judged), metrics

    def act(self, st: FQEState, obs: Tensor, noise: Tensor) -> Tensor:
        """The judged policy's action, whose networks may see other features than Q."""
        return self.judged.act(st.judged, self.judged.features(obs[..., : self.spec.obs_dim]), noise)

    @property
    def act_noise_dim(self) -> int:
        """The judged policy's."""
        return self.judged.act_noise_dim

    @property
    def chunk(self) -> int:
        """The judged policy's."""
        return self.judged.chunk

    def q(self, st: FQEState, obs: Tensor, action: Tensor) -> Tensor:
        """The fitted value."""
        return q_values(st.Q.p, obs, action)


class _Told(Hooks):
    """Says how far it is."""

    def __init__(self, progress: Progress | None, updates: int) -> None:
        self._progress, self._updates = progress, updates

    def tick(self, step: int) -> None:
        if self._progress is not None:
            self._progress(step, self._updates)


def estimate(
    policy: Policy,
    episodes: Episodes,
    gamma: float,
    updates: int = 3_000,
    batch_size: int = 256,
    config: FQEConfig | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """Discounted return of each of the policy's seeds from the recorded initial states, (S,).

    `episodes` hold the rewards to be judged by. Q sees the Fourier features that the policy does, unless `config` has
    others. Raises ToolkitError where their sizes are not the policy's.
    """
    card, spec = policy.card, policy.agent.spec
    inputs, acting = card.inputs(episodes), spec.action_dim // policy.agent.chunk
    if (inputs.shape[1], episodes.action.shape[1]) != (spec.obs_dim, acting):
        raise ToolkitError(
            f"the data has {inputs.shape[1]} numbers in a policy's input and {episodes.action.shape[1]} in an action; "
            f"expected {spec.obs_dim} and {acting}, as in task {card.name}"
        )
    normalizer = Normalizer(policy.mean.numpy(), policy.std.numpy())
    replay = Replay.from_episodes(episodes, normalizer(inputs), gamma, card.cut_value(gamma))
    config = config or FQEConfig(fourier=policy.agent.cfg.fourier)
    learner = Learner(FQE(config, policy.agent, card.return_range(gamma)), policy.seeds, updates)
    learner.state = learner.state._replace(judged=policy.states)
    plan = OfflinePlan(updates, batch_size, 1, gamma, "cosine", log_every=updates, eval_every=updates)
    offline_loop(learner, replay, normalizer, plan, _Told(progress, updates))
    begin = normalizer(inputs[episodes.starts[:-1]])
    obs = np.broadcast_to(begin, (len(policy.seeds), *begin.shape)).copy()
    worth: FloatArray = learner.values(obs, learner.greedy(obs)).mean(1)
    return worth
