"""The guard: a policy's learning rate thirty times too high ruins a good policy, and with the guard it does not."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from toolkit.agents import AGENTS
from toolkit.data.replay import Normalizer, Replay
from toolkit.evaluate import evaluate
from toolkit.learner import Learner
from toolkit.pipeline.blocks import GuardRule
from toolkit.pipeline.guard import Guard
from toolkit.pipeline.seam import carry
from toolkit.pipeline.spec import Seam
from toolkit.tasks import EnvPool, TaskCard
from toolkit.train import Hooks, OfflinePlan, OnlinePlan, Practice, offline_loop, online_loop
from toolkit.types import Episodes, FloatArray, Json

SEEDS = [0, 1]
STEPS = 500
GAMMA = 0.95
HEALTHY = 3e-5


class Reach(gymnasium.Env[dict[str, FloatArray], FloatArray]):
    """A point on a square table, to be moved to a place on it."""

    def __init__(self) -> None:
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space: Any = spaces.Dict(
            {"observation": box, "achieved_goal": box, "desired_goal": box}  # as Fetch has it
        )
        self.action_space: Any = box

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, FloatArray], Json]:
        super().reset(seed=seed)
        self.xy, self.goal = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        return self._seen(), {}

    def step(self, action: FloatArray) -> tuple[dict[str, FloatArray], float, bool, bool, Json]:
        self.xy = np.clip(self.xy + 0.2 * action, -1, 1).astype(np.float32)
        return self._seen(), 0.0, False, False, {}

    def _seen(self) -> dict[str, FloatArray]:
        return {"observation": self.xy, "achieved_goal": self.xy, "desired_goal": self.goal}


CARD = TaskCard.model_validate(
    {
        "name": "reach",
        "description": "Reach a place",
        "env_id": "GuardReach-v0",
        "max_episode_steps": 15,
        "goal": {"observed": True, "radius": 0.15},
    }
)
NORMALIZER = Normalizer(np.zeros(4, np.float32), np.ones(4, np.float32))


class Watch(Hooks):
    """Evaluates, and tells the guard where there is one; in the end what it went back to is evaluated."""

    def __init__(self, guard: Guard | None = None) -> None:
        self.guard = guard
        self.success: list[FloatArray] = []

    def evaluate(self, learner: Learner, step: int) -> None:
        self.success.append(self._played(learner))
        if self.guard is not None and self.guard.judge(step, self.success[-1].tolist()) and step == STEPS:
            self.success.append(self._played(learner))

    def _played(self, learner: Learner) -> FloatArray:
        result = evaluate(lambda inputs: learner.greedy(inputs), CARD, len(learner.seeds), 25)
        return result.success.mean(1).astype(np.float32)


def learner(agent: str, **config: Any) -> Learner:
    kind, spec = AGENTS[agent], EnvPool(CARD, 1).envs[0].sizes
    made = kind(kind.Config.model_validate({"hidden": (32, 32)} | config), spec)
    return Learner(made, SEEDS, 1_000, compile="off", precision="fp32", device=torch.device("cpu"))


def recording() -> Replay:
    """Straight ways to the goal, of one step each: enough to imitate."""
    rng = np.random.default_rng(0)
    xy, goal = rng.uniform(-1, 1, (2, 2_000, 2)).astype(np.float32)
    action = np.clip((goal - xy) / 0.2, -1, 1)
    after = np.clip(xy + 0.2 * action, -1, 1)
    rows = np.stack([xy, after], 1).reshape(-1, 2)
    actions = np.stack([action, 0 * action], 1).reshape(-1, 2)
    desired = np.repeat(goal, 2, 0)
    reward = np.where(np.arange(len(rows)) % 2 == 0, -1.0, 0.0).astype(np.float32)
    cut = np.arange(len(rows)) % 2 == 0
    there = cut & (np.linalg.norm(np.repeat(after, 2, 0) - desired, axis=1) < 0.15)
    reward[there] = 0.0
    episodes = Episodes(rows, rows, desired, actions, reward, there, cut & ~there, np.arange(0, len(rows) + 1, 2))
    return Replay.from_episodes(episodes, CARD.inputs(episodes), GAMMA)


@pytest.fixture(scope="module")
def pretrained() -> tuple[Replay, Any]:
    gymnasium.register("GuardReach-v0", f"{__name__}:Reach")
    data, cloned = recording(), learner("bc", lr=5e-3)
    plan = OfflinePlan(200, 128, 1, GAMMA, "constant", 200, 200)
    offline_loop(cloned, data, NORMALIZER, plan, Watch())
    return data, cloned.state


def online(
    pretrained: tuple[Replay, Any], lr_policy: float, rule: GuardRule | None = None
) -> tuple[Watch, Guard | None]:
    data, state = pretrained
    sac = learner("sac", lr=1e-3, lr_policy=lr_policy, temperature=0.02, entropy_backup=False, target_entropy=-4.0)
    sac.state = carry(state, sac.state, Seam(carry=("pi",), optimizer="reset"))
    guard = Guard(rule, sac) if rule else None
    hooks = Watch(guard)
    pool = EnvPool(CARD, len(SEEDS))
    practice = Practice(pool, NORMALIZER, SEEDS)
    ring = Replay.ring(sac.agent.spec, 2, len(SEEDS), 1, 2 * STEPS)
    share = (lambda *_: 0.25) if guard is None else guard.share(lambda *_: 0.25)
    plan = OnlinePlan(
        STEPS, 1, warmup_steps=50, critic_steps=150, batch_size=64, n_step=1, gamma=GAMMA, lr_schedule="constant",
        log_every=STEPS, eval_steps=tuple(range(50, STEPS + 1, 50)), offline_share=share,
    )  # fmt: skip
    online_loop(sac, data, practice, ring, plan, hooks)
    return hooks, guard


def test_a_collapse_without_the_guard_and_none_with_it(pretrained: tuple[Replay, Any]) -> None:
    healthy, _ = online(pretrained, HEALTHY)
    ruined, _ = online(pretrained, 30 * HEALTHY)
    guarded, guard = online(pretrained, 30 * HEALTHY, GuardRule(drop=0.05, over=1))
    assert min(evaluation.min() for evaluation in healthy.success) >= 0.9
    assert ruined.success[-1].max() <= 0.3
    assert guarded.success[-1].mean() >= healthy.success[-1].mean() - 0.05
    assert guard is not None
    assert {line["seed"] for line in guard.log} == set(SEEDS)
    assert all(line["best"] - line["success"] > 0.05 for line in guard.log)
