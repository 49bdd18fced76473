"""What a training loop is watched with: evaluations, metrics, checkpoints, the terminal, interruptions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from toolkit import checkpoint
from toolkit.console import rolled_back
from toolkit.evaluate import EvalResult, evaluate
from toolkit.learner import Learner
from toolkit.log import MetricsLog, TensorBoardLog
from toolkit.maze import Cell
from toolkit.pipeline.context import Context
from toolkit.pipeline.guard import Guard
from toolkit.pipeline.material import Material, sample
from toolkit.pipeline.pictures import write_routes
from toolkit.pipeline.summary import versions
from toolkit.policy import describe, policy_tensors
from toolkit.train import Hooks, Saved, Values
from toolkit.types import Failed, Json

# The last evaluation plays the same episodes as `toolkit evaluate`, those on the way play others.
FINAL_EPISODES, EARLY_EPISODES = 0, 1


@dataclass(frozen=True)
class Schedule:
    """How much and how often to evaluate and to save."""

    phase: str  # offline or online
    total: int  # the loop's last step
    first: bool  # whether to evaluate before the first update
    episodes: int
    final_episodes: int
    starts: list[Cell] | None
    gamma: float
    checkpoint_every_s: float


class Watch(Hooks):
    """What happens while one stage trains.

    `result` is the summary of the last evaluation, kept in the checkpoint. `snapshot` gives the loop's state at a step
    at which it is whole. A `guard` hears of every evaluation, and after the last one what it rolled back to is played.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        agent_name: str,
        learner: Learner,
        material: Material,
        schedule: Schedule,
        snapshot: Callable[[int], Saved],
        resumed: Json | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.context, self.name, self.schedule, self.snapshot = context, name, schedule, snapshot
        self.guard = guard
        self.material = material
        card, folder = context.plan.card, context.folder
        self.computed_by = _computed_by(learner)
        self.policy = describe(agent_name, learner.agent, card, learner.seeds, material.far_starts)
        resumed = resumed or {"result": None, "metrics_offset": 0, "step": None}
        self.result: Json | None = resumed["result"]
        self.metrics = MetricsLog(folder.stage(name) / "metrics.jsonl", resumed["metrics_offset"])
        purge = None if resumed["step"] is None else resumed["step"] + 1
        self.tensorboard = TensorBoardLog(folder.tensorboard, schedule.phase, name, learner.seeds, purge)
        chunk = learner.agent.chunk
        self.watched = sample(material.replay.at(0), chunk=chunk) if material.replay is not None else None
        self.elapsed = folder.elapsed(name)
        self.begun = self.saved_at = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Seconds this stage has taken, over all processes that worked on it."""
        return self.elapsed + time.monotonic() - self.begun

    def evaluate(self, learner: Learner, step: int) -> None:
        """Play, write a line of metrics; an interruption saves what stands and that this evaluation is due."""
        last = step >= self.schedule.total
        if step == 0 and not self.schedule.first:
            return
        result = self._measure(learner, step, last)
        if self._rolled_back(step, result) and last:
            result = self._measure(learner, step, last)
        if last:
            self.result = summarise(result)
            routes = self.context.folder.stage(self.name) / "routes.json"
            write_routes(routes, result, self.context.plan.card, learner.seeds, self.material.far_starts)

    def _measure(self, learner: Learner, step: int, last: bool) -> EvalResult:
        try:
            with self.context.interrupt.waiting(False):
                result = self._play(learner, last)
        except (KeyboardInterrupt, SystemExit):
            if step > 0:
                self._save(self.snapshot(step), pending=True)
            raise
        self._write(step, self._outcome(result) | self._beliefs(learner, result))
        return result

    def _rolled_back(self, step: int, result: EvalResult) -> bool:
        """Whether the guard has taken a seed back; it says so."""
        if self.guard is None:
            return False
        lines = self.guard.judge(step, result.success.mean(1).tolist())
        if lines:
            self._write(step, self.guard.values())
        for line in lines:
            self.context.console.note(f"{self.name}: guard, {rolled_back(line)}")
        return bool(lines)

    def log(self, step: int, values: Values) -> None:
        """Write a line of metrics."""
        self._write(step, values)

    def tick(self, step: int) -> None:
        """Show progress; save when it is time, at the end and before leaving."""
        self.context.console.advance(step)
        every = self.schedule.checkpoint_every_s
        stop = self.context.interrupt.signal is not None
        if stop or step >= self.schedule.total or time.monotonic() - self.saved_at >= every:
            self._save(self.snapshot(step))
        self.context.interrupt.check()

    def close(self) -> None:
        """Close the files."""
        self.metrics.close()
        self.tensorboard.close()

    def _write(self, step: int, values: Values) -> None:
        self.metrics.write(self.schedule.phase, step, values)
        self.tensorboard.write(step, values)
        self.context.console.advance(step, values)

    def _play(self, learner: Learner, last: bool) -> EvalResult:
        plan = self.schedule
        return evaluate(
            lambda inputs: learner.greedy(self.material.normalizer(inputs)),
            self.context.plan.card,
            seeds=len(learner.seeds),
            episodes=plan.final_episodes if last else plan.episodes,
            starts=plan.starts,
            base_seed=FINAL_EPISODES if last else EARLY_EPISODES,
            record_routes=last,
            gamma=self.schedule.gamma,
        )

    def _outcome(self, result: EvalResult) -> Values:
        """What happened, one number a seed."""
        ratio = [float(np.mean(known)) if len(known := row[~np.isnan(row)]) else np.nan for row in result.path_ratio]
        values = {
            "eval/success": result.success.mean(1).tolist(),
            "eval/return": result.ret.mean(1).tolist(),
            "eval/steps": result.steps.mean(1).tolist(),
            "eval/path_ratio": ratio,
        }
        return values | {"true_return": result.discounted.astype(np.float32).mean(1).tolist()}

    def _beliefs(self, learner: Learner, result: EvalResult) -> Values:
        """How far the policy is from the data's actions; what the critics say of both, and of the episodes played."""
        distance: Values = {}
        values: Values = {}
        if self.watched is not None:
            obs, action = (np.broadcast_to(x, (len(learner.seeds), *x.shape)).copy() for x in self.watched)
            chosen = learner.greedy(obs)
            distance["action_distance"] = np.linalg.norm(chosen - action, axis=-1).mean(1).tolist()
            values["q_data"] = learner.values(obs, action).mean(1).tolist()
            values["q_policy"] = learner.values(obs, chosen).mean(1).tolist()
        starts = self.material.normalizer(result.start_inputs)
        q_start = learner.values(starts, learner.greedy(starts))
        values["q_start"] = q_start.mean(1).tolist()
        if np.isnan(q_start).all():  # an agent without critics
            return distance
        values["q_below_return"] = (q_start <= result.discounted.astype(np.float32)).mean(1).tolist()
        return distance | values

    def _save(self, saved: Saved, pending: bool = False) -> None:
        tensors, meta = saved
        if not all(bool(torch.isfinite(leaf).all()) for leaf in torch.utils._pytree.tree_leaves(tensors["agent"])):
            raise Failed(
                f"stage {self.name}: weights are no longer finite at step {meta['step']}: training has diverged; "
                f"lower {self.name}.config.lr. An earlier checkpoint, if any, is {self.context.checkpoint(self.name)}"
            )
        mean, std = self.material.normalizer
        flat = policy_tensors(tensors["agent"], mean, std) | checkpoint.flatten(tensors.get("practice", {}), "practice")
        kept, guard = self.guard.state() if self.guard else ({}, None)
        meta = {
            "policy": self.policy,
            "key": self.context.plan.keys[self.name],
            "metrics_offset": self.metrics.offset,
            "result": self.result,
            "evaluation_due": pending,
            "threads": torch.get_num_threads(),
            "computed_by": self.computed_by,
            "guard": guard,
            **meta,
        }
        checkpoint.save(self.context.checkpoint(self.name), flat | kept, meta)
        self.context.folder.elapsed(self.name, self.wall_s)
        self.saved_at = time.monotonic()


def _computed_by(learner: Learner) -> Json:
    """What the last bits of a run depend on beside the number of threads."""
    return {"device": learner.device.type, "precision": str(learner.dtype), "compiled": learner.compiled, **versions()}


def summarise(result: EvalResult) -> Json:
    """Success and return with interval and seeds, of the rest the middle; success is null where none is known.

    Where the card has tasks, the success of each is there too.
    """
    summary = result.summary()
    known = summary["success"]["iqm"] is not None
    middles = {name: summary[name]["iqm"] for name in ("path_ratio", "steps_to_goal")}
    tasks = {"tasks": summary["tasks"]} if "tasks" in summary else {}
    return {"success": summary["success"] if known else None, "return": summary["return"], **middles, **tasks}
