"""Goals drawn anew in a training stage: what the file's setting means for a task, and where it cannot be."""

from __future__ import annotations

from typing import Any

from toolkit.agents import Agent
from toolkit.config import Problem
from toolkit.data.replay import Goals, Relabel
from toolkit.pipeline.blocks import GoalShares
from toolkit.pipeline.spec import TrainingStage
from toolkit.tasks import TaskCard


def goal_rule(card: TaskCard, stage: TrainingStage, agent: Agent[Any]) -> Relabel | None:
    """How a stage's batches draw goals, in the card's units; None where every transition keeps its recorded one.

    Waypoints are drawn with the goals, so an agent that needs them gets its recorded goals by the same way.
    """
    if stage.relabel is None and not agent.waypoint_steps:
        return None
    value, policy = Goals(own=1.0), None
    if stage.relabel is not None:
        value = _goals(stage.relabel.value)
        policy = _goals(stage.relabel.policy) if stage.relabel.policy else None
    return Relabel(value, card.goal.radius, card.reward.step, card.reward.success, policy)


def _goals(shares: GoalShares) -> Goals:
    return Goals(shares.own, shares.current, shares.future, shares.distance == "uniform")


def goal_problem(card: TaskCard, stage: TrainingStage, agent: Agent[Any]) -> Problem | None:
    """What is wrong where a stage needs goals that the task does not show, or returns that know only others."""
    shows = f"a task that shows its goal under reward.rule sparse, such as pointmaze-medium-gc; {card.name} does not"
    if not card.goal.observed or card.reward.rule != "sparse":
        if stage.relabel is not None:
            return Problem(("relabel",), f"expected null, because goals can be drawn anew only on {shows}")
        if agent.waypoint_steps:
            return Problem(("agent",), f"{stage.agent} needs {shows}")
    if stage.relabel is None and agent.waypoint_steps and card.goal.cell is not None:
        why = f"because {stage.agent} aims at places on the way, and recorded goals of {card.name} are all one place"
        return Problem(("relabel",), f"expected shares of goals to draw anew, or {{}}, {why}")
    if stage.relabel is not None and "mc_return" in agent.needs:
        why = f"because {stage.agent} reads the recorded returns, which know nothing of goals drawn anew"
        return Problem(("relabel",), f"expected null, {why}")
    return None
