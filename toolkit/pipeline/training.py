"""The two training stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from toolkit.agents import Agent
from toolkit.data.columns import columns
from toolkit.data.replay import Replay
from toolkit.data.rollout import RolloutBuffer
from toolkit.data.window import Recording
from toolkit.learner import Learner
from toolkit.log import read_metrics
from toolkit.on_policy import OnPolicyPlan, on_policy_loop
from toolkit.pipeline.context import Context
from toolkit.pipeline.estimate import planned_updates
from toolkit.pipeline.goals import goal_rule
from toolkit.pipeline.guard import Guard
from toolkit.pipeline.material import Material, Trained, load_trained, make_agent, prepare, restore_state, task_sizes
from toolkit.pipeline.seam import carry, evaluation_steps, offline_share, switch_summary
from toolkit.pipeline.spec import OfflineStage, OnlineStage, TrainingStage
from toolkit.pipeline.watch import Schedule, Watch
from toolkit.pipeline.windowed import prepare_window
from toolkit.tasks import EnvPool, TaskCard, unseen_env
from toolkit.train import (
    Hooks,
    Memory,
    OfflinePlan,
    OnlinePlan,
    Practice,
    Saved,
    offline_loop,
    online_loop,
    online_state,
)
from toolkit.types import Json, ToolkitError

Found = tuple[dict[str, torch.Tensor], Json]  # a checkpoint's tensors and meta
Loop = Callable[[Hooks], None]  # an online loop with all it works on, begun or gone on with


def run_offline(context: Context, name: str, stage: OfflineStage, found: Found | None) -> Json:
    """Train on the recording; the stage's result. `found` is the checkpoint to go on from."""
    agent = stage_agent(context, stage)
    card = context.plan.card
    material = _material(context, name, stage, agent)
    assert material.replay is not None
    for rule, finding in {finding.rule: finding for finding in reversed(material.findings)}.items():
        context.console.note(f"{name}: the data: {finding} ({rule}; all: toolkit data validate)")
    learner = Learner(agent, context.seeds, stage.updates, stage.compile, stage.precision)
    plan = OfflinePlan(
        updates=stage.updates,
        batch_size=stage.batch_size,
        n_step=stage.n_step,
        gamma=stage.gamma,
        lr_schedule=stage.lr_schedule,
        log_every=stage.log_every,
        eval_every=stage.eval_every or stage.updates,
        relabel=goal_rule(card, stage, agent),
    )

    def snapshot(step: int) -> Saved:
        return {"agent": learner.state}, {"step": step}

    watch = _watch(context, name, stage, learner, material, snapshot, found)
    begin = _go_on(learner, watch, found)
    context.console.stage_started(name, stage.updates, "updates")
    replay = material.replay
    return _carry_out(watch, lambda: offline_loop(learner, replay, material.normalizer, plan, watch, begin))


def run_online(context: Context, name: str, stage: OnlineStage, found: Found | None) -> Json:
    """Train in the simulator; the stage's result with what the switch cost."""
    agent = stage_agent(context, stage)
    source = context.plan.spec.stages[stage.start] if stage.start else None
    earlier = None
    if stage.start and isinstance(source, OfflineStage):
        earlier = load_trained(context.checkpoint(stage.start), stage_agent(context, source), context.seeds)
    card, material = context.plan.card, _material(context, name, stage, agent, earlier)
    learner = Learner(agent, context.seeds, planned_updates(stage, card), stage.compile, stage.precision)
    if earlier is not None:
        learner.state = carry(earlier.state, learner.state, stage.seam, agent.carries)
    practice = Practice(EnvPool(card, len(context.seeds) * stage.envs), material.normalizer, context.seeds)
    data = material.replay if stage.seam.data == "keep" else None
    guard = Guard(stage.guard, learner, data is not None) if stage.guard else None
    if agent.cfg.on_policy:
        memory, loop = _on_policy(stage, card, learner, practice)
    else:
        memory, loop = _off_policy(stage, card, learner, practice, data, guard)

    def snapshot(_: int) -> Saved:
        return online_state(learner, practice, memory)

    watch = _watch(context, name, stage, learner, material, snapshot, found, guard)
    if found is not None:
        tensors, meta = found
        if guard is not None:
            guard.restore(tensors, meta["guard"])
        inner = {key.removeprefix("practice/"): leaf for key, leaf in tensors.items() if key.startswith("practice/")}
        practice.restore(inner, meta["practice"])
        memory.restore(inner)
    _go_on(learner, watch, found)
    context.console.stage_started(name, stage.env_steps, "env steps")
    result = _carry_out(watch, lambda: loop(watch))
    if stage.start:
        result["switch"] = switch_summary(read_metrics(context.folder.stage(name) / "metrics.jsonl"))
    if guard is not None:
        result["guard"] = guard.log
    return result


def stage_agent(context: Context, stage: TrainingStage) -> Agent[Any]:
    """The stage's agent, for the task's sizes."""
    return make_agent(stage.agent, stage.config, task_sizes(context.plan.card))


def _material(
    context: Context, name: str, stage: TrainingStage, agent: Agent[Any], earlier: Trained | None = None
) -> Material:
    """What the stage learns from, as a whole or passing through memory."""
    source, card = context.plan.spec.data_of(name), context.plan.card
    dataset = None if source is None else context.plan.dataset(context.folder.data, source)
    if dataset is not None and stage.window is not None:
        found = columns(dataset, stage.window.stored)
        if found.starts[-1] > stage.window.rows:
            return prepare_window(card, found, agent, stage, stage.window.rows, earlier)
    return prepare(card, dataset, agent, stage.gamma, earlier, stage.relabel is not None)


def _off_policy(
    stage: OnlineStage,
    card: TaskCard,
    learner: Learner,
    practice: Practice,
    data: Recording | None,
    guard: Guard | None,
) -> tuple[Memory, Loop]:
    """A ring for each environment, and the loop that draws batches from it and from the recording."""
    ring = practice_ring(card, len(practice.seeds), stage.envs, stage.capacity)
    share = offline_share(stage.seam.mix, data.written() if data is not None else 0)
    plan = OnlinePlan(
        env_steps=stage.env_steps,
        utd=stage.utd,
        warmup_steps=stage.warmup_steps,
        critic_steps=stage.critic_steps,
        batch_size=stage.batch_size,
        n_step=stage.n_step,
        gamma=stage.gamma,
        lr_schedule=stage.lr_schedule,
        log_every=stage.log_every,
        eval_steps=evaluation_steps(stage),
        offline_share=guard.share(share) if guard else share,
        relabel=goal_rule(card, stage, learner.agent),
    )
    return ring, partial(online_loop, learner, data, practice, ring, plan)


def practice_ring(card: TaskCard, seeds: int, envs: int, capacity: int) -> Replay:
    """Room for what so many environments of each seed see."""
    env = unseen_env(card)
    return Replay.ring(env.sizes, env.achieved_dim, seeds, envs, capacity)


def _on_policy(stage: OnlineStage, card: TaskCard, learner: Learner, practice: Practice) -> tuple[Memory, Loop]:
    """One rollout, and the loop that learns from it and forgets it."""
    steps = stage.rollout or card.max_episode_steps
    agent = learner.agent
    rollout = RolloutBuffer(agent.spec, practice.seeds, steps, stage.envs, agent.noise_dim)
    plan = OnPolicyPlan(
        env_steps=stage.env_steps,
        critic_steps=stage.critic_steps,
        gamma=stage.gamma,
        lr_schedule=stage.lr_schedule,
        log_every=stage.log_every,
        eval_steps=evaluation_steps(stage),
    )
    return rollout, partial(on_policy_loop, learner, practice, rollout, plan)


def _watch(
    context: Context,
    name: str,
    stage: TrainingStage,
    learner: Learner,
    material: Material,
    snapshot: Callable[[int], Saved],
    found: Found | None,
    guard: Guard | None = None,
) -> Watch:
    online = isinstance(stage, OnlineStage)
    if stage.starts == "far" and not material.far_starts:
        raise no_far_starts(name)
    schedule = Schedule(
        phase="online" if online else "offline",
        total=stage.env_steps if isinstance(stage, OnlineStage) else stage.updates,
        first=online or stage.eval_every is not None,
        episodes=stage.eval_episodes,
        final_episodes=stage.final_episodes,
        starts=material.far_starts if stage.starts == "far" else None,
        gamma=stage.gamma,
        checkpoint_every_s=stage.checkpoint_every_s,
    )
    resumed = found[1] if found else None
    return Watch(context, name, stage.agent, learner, material, schedule, snapshot, resumed, guard)


def _go_on(learner: Learner, watch: Watch, found: Found | None) -> int:
    """Put the checkpoint's weights into the learner, make up for an interrupted evaluation; the step it stands at."""
    if found is None:
        return 0
    tensors, meta = found
    if meta["threads"] != torch.get_num_threads():  # another number of threads, other last bits
        torch.set_num_threads(meta["threads"])
        watch.context.console.note(f"{watch.name}: goes on with {meta['threads']} threads, as it began")
    began, now = meta["computed_by"], watch.computed_by
    if changed := [f"{name} {began.get(name)}, now {now[name]}" for name in now if began.get(name) != now[name]]:
        text = f"{watch.name}: goes on, but not to the same last bits as without the stop; it began with "
        watch.context.console.note(text + "; ".join(changed))
    learner.state = restore_state(tensors, learner.agent, len(learner.seeds), learner.device)
    step = int(meta["step"])
    if meta["evaluation_due"]:
        watch.evaluate(learner, step)
        watch.tick(step)
    return step


def _carry_out(watch: Watch, loop: Callable[[], None]) -> Json:
    """Run the loop so that interruptions wait for a whole state; the result of its last evaluation."""
    try:
        with watch.context.interrupt.waiting():
            loop()
    finally:
        watch.close()
    assert watch.result is not None
    return dict(watch.result)


def no_far_starts(name: str) -> ToolkitError:
    """What to say where a stage is to begin its episodes where the recording has nothing to begin."""
    return ToolkitError(
        f"{name}.starts: the recording joins every cell it visits to the goal, so no start is far; "
        f"use --set {name}.starts=all, or a recipe of shorter pieces"
    )
