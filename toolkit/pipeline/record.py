"""Recordings of trained stages, as D4RL has them: what a policy does, or all that it saw while it learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit import checkpoint
from toolkit.data.replay import Normalizer, Replay
from toolkit.data.sampler import HEADER, REWARD, TERMINATED
from toolkit.learner import Learner
from toolkit.pipeline.context import Context
from toolkit.pipeline.material import fitted, load_trained
from toolkit.pipeline.spec import OfflineStage, OnlineStage, RecordStage
from toolkit.pipeline.training import practice_ring, stage_agent
from toolkit.recordings import write
from toolkit.tasks import EnvPool, TaskCard
from toolkit.train import Practice, store
from toolkit.types import Episodes

LANES = 10  # environments of each seed
APART = 1 << 10  # added to a run's seeds, so that no episode of its practice is played again


def run_record(context: Context, name: str, stage: RecordStage) -> Path:
    """Write the recording into the run's Minari root, seed after seed; the data set's folder."""
    card, source = context.plan.card, context.plan.spec.stages[stage.of]
    assert isinstance(source, OfflineStage | OnlineStage)
    folder = context.checkpoint(stage.of)
    if stage.env_steps is None:
        assert isinstance(source, OnlineStage)
        context.console.stage_started(name, 1, "recordings")
        tensors, _ = checkpoint.load(folder)
        ring, normalizer = practice_ring(card, len(context.seeds), source.envs, source.capacity), fitted(tensors)
        ring.restore({key.removeprefix("practice/"): leaf for key, leaf in tensors.items()})
        context.console.advance(1)
    else:
        context.console.stage_started(name, stage.env_steps, "env steps")
        learner = Learner(stage_agent(context, source), context.seeds, 0, compile="off")
        trained = load_trained(folder, learner.agent, context.seeds)
        learner.state, normalizer = trained.state, trained.normalizer
        ring = _play(context, learner, normalizer, stage.env_steps)
    dataset = context.plan.dataset(context.folder.data, name)
    made = {"command": "record", "of": [stage.of], "agent": source.agent, "seeds": context.seeds}
    identity = dataset.relative_to(context.folder.data).as_posix()
    episodes = _episodes(ring, card, normalizer)
    return write([episodes], identity, context.folder.data, made=made, card=card, replace=True)


def _play(context: Context, learner: Learner, normalizer: Normalizer, env_steps: int) -> Replay:
    """Steps of each seed, spread over no more environments than play whole episodes."""
    card, seeds = context.plan.card, len(learner.seeds)
    envs = max(1, min(LANES, env_steps // card.max_episode_steps))
    practice = Practice(EnvPool(card, seeds * envs), normalizer, [seed + APART for seed in learner.seeds])
    ring = practice_ring(card, seeds, envs, 2 * env_steps)
    practice.start()
    while practice.env_step < env_steps:
        store(ring, practice.step(learner), 1.0, 0.0)
        context.console.advance(practice.env_step)
    practice.pool.close()
    return ring


def _episodes(ring: Replay, card: TaskCard, normalizer: Normalizer) -> Episodes:
    """What a buffer holds, with observations as the simulator gave them, but for a rounding where they were scaled."""
    rows, starts = ring.unrolled()
    goal = rows.shape[1] - HEADER - ring.spec.obs_dim - ring.spec.action_dim
    achieved, inputs, action = np.split(rows[:, HEADER:], np.cumsum([goal, ring.spec.obs_dim]), axis=1)
    obs = (inputs * normalizer.std + normalizer.mean).astype(np.float32)
    if card.goal.observed:
        obs, desired = obs[:, :-goal], obs[:, -goal:]
    else:
        desired = np.broadcast_to(np.zeros(goal) if card.goal_xy is None else card.goal_xy, achieved.shape)
    terminated = rows[:, TERMINATED] != 0.0
    last = np.zeros(len(rows), np.bool_)
    last[starts[1:] - 2] = True
    return Episodes(
        obs, achieved, desired.astype(np.float32), action, rows[:, REWARD], terminated, last & ~terminated, starts
    )
