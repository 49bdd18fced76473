"""The third training loop: play T steps, learn from exactly those, forget them (level 3)."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.data.rollout import RolloutBuffer
from toolkit.learner import Learner
from toolkit.train import Hooks, LRSchedule, Practice, Values, lr_scale, recent_means, to_values


@dataclass(frozen=True)
class OnPolicyPlan:
    """How long and how to train in the simulator; steps are per seed."""

    env_steps: int
    critic_steps: int  # steps at first in which the policy stays as it is and the critic learns to judge it
    gamma: float
    lr_schedule: LRSchedule
    log_every: int
    eval_steps: tuple[int, ...]


def on_policy_loop(
    learner: Learner, practice: Practice, rollout: RolloutBuffer, plan: OnPolicyPlan, hooks: Hooks
) -> None:
    """Train until `plan.env_steps` environment steps of each seed; each full rollout moves the policy once.

    Steps after the last full rollout are taken and not learned from.
    """
    N, evals = practice.envs, set(plan.eval_steps)
    if not practice.episodes:
        practice.start()
        hooks.evaluate(learner, 0)
    while practice.env_step < plan.env_steps:
        t = practice.step(learner)
        rollout.store(t.obs, t.action, t.next_obs, t.noise, t.reward, t.terminated, t.truncated, plan.gamma)
        step = practice.env_step
        if rollout.full:
            packed = learner.receive(rollout.take(practice.grad_step))
            lr = lr_scale(plan.lr_schedule, step, plan.env_steps)
            values: Values = {}
            for u in range(learner.agent.policy_every):  # the policy first: it is the one that played
                values |= to_values(learner.update(packed, lr, u > 0 or step <= plan.critic_steps))
            practice.grad_step += 1
            if step % plan.log_every < N * rollout.steps:  # the first update since a multiple of it
                hooks.log(step, values | recent_means(practice))
        if any(s in evals for s in range(step - N + 1, step + 1)):
            hooks.evaluate(learner, step)
        hooks.tick(step)
