"""What a pipeline asks of its task, its agents and its seams, checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from toolkit.agents import AGENTS, CONFIGS, Agent
from toolkit.collect import dataset_id
from toolkit.config import Problem
from toolkit.learner import stack
from toolkit.pipeline.context import Plan
from toolkit.pipeline.estimate import planned_updates
from toolkit.pipeline.goals import goal_problem
from toolkit.pipeline.material import make_agent, task_sizes
from toolkit.pipeline.seam import SeamError, carry
from toolkit.pipeline.spec import EvaluateStage, OfflineStage, OnlineStage, RecordingStage, StitchStage, TrainingStage
from toolkit.tasks import try_out, unseen_env
from toolkit.types import Spec, ToolkitError


def problems(made: Plan) -> list[Problem]:
    """All that does not fit together; what hangs on the agents' networks only where the rest is right."""
    sizes = task_sizes(made.card)
    rest = [*_recordings(made), *_task(made), *_starts(made), *_agents(made, sizes), *_chunks(made)]
    return rest or [*_goals(made, sizes), *_seams(made, sizes), *_rollouts(made)]


def _recordings(made: Plan) -> Iterator[Problem]:
    """Two collect stages must not fill the same data set."""
    ids = sorted((dataset_id(recipe, made.card), name) for name, recipe in made.recipes.items())
    for (first, one), (second, other) in pairwise(ids):
        if first == second:
            text = f"stages {one} and {other} both record {first}; give one of them a recipe of its own"
            yield Problem(("stages", other, "recipe"), text)


def _task(made: Plan) -> Iterator[Problem]:
    """Recipes can drive in the simulator, and nothing goes by stitches or a success that there are not."""
    card, env = made.card, unseen_env(made.card)
    if not card.in_maze:
        try:
            try_out(card)
        except ToolkitError as error:
            yield Problem(("task",), str(error))
            return
    for name, recipe in made.recipes.items():
        try:
            recipe.controllers(env.card.env_id, env.maze, env.actions.control_dim)
        except ToolkitError as error:
            yield Problem(("stages", name, "recipe"), str(error))
    unknown = f"task {card.name} leaves it to the simulator to say what success is, or not to"
    for name, block in made.resolved["stages"].items():
        if isinstance(made.spec.stages[name], StitchStage) and not card.in_maze:
            text = f"stitches are counted between a maze's cells, and task {card.name} has none; remove the stage"
            yield Problem(("stages", name), text)
        if card.reward.rule == "env" and block.get("config", {}).get("by") == "success":
            yield Problem(("stages", name, "config", "by"), f"{unknown}; expected return, got success")
        if card.reward.rule == "env" and block.get("guard"):
            yield Problem(("stages", name, "guard"), f"it goes by success, and {unknown}; expected null")


def _starts(made: Plan) -> Iterator[Problem]:
    """Far starts are known only where a recording and a fixed goal are."""
    for name, stage in made.spec.stages.items():
        if isinstance(stage, RecordingStage | StitchStage) or stage.starts != "far":
            continue
        why = "the task has no fixed goal" if made.card.goal_xy is None else ""
        for source in stage.of if isinstance(stage, EvaluateStage) else (name,):
            if made.spec.data_of(source) is None:
                why = why or f"{source} has no recording"
        if why:
            text = f"far needs to know what the data joins, but {why}; expected all"
            yield Problem(("stages", name, "starts"), text)


def _agents(made: Plan, sizes: Spec) -> Iterator[Problem]:
    """No algorithm stands in a stage, or on a task, that it is not for."""
    for name, stage in made.spec.stages.items():
        if not isinstance(stage, OfflineStage | OnlineStage):
            continue
        agent = AGENTS[stage.agent]
        if why := _unfit(agent, stage, sizes):
            fits = ", ".join(other for other, kind in AGENTS.items() if not _unfit(kind, stage, sizes))
            yield Problem(("stages", name, "agent"), f"{stage.agent} {why}; expected one of {fits}")
        elif agent.carries and isinstance(stage, OnlineStage) and stage.start is None:
            networks = " and ".join(agent.carries.values())
            text = f"expected a stage of kind offline, whose {networks} {stage.agent} takes over; got nothing"
            yield Problem(("stages", name, "start"), text)


def _unfit(agent: type[Agent[Any]], stage: TrainingStage, sizes: Spec) -> str:
    """Why an algorithm is not for this stage of a task of these sizes; nothing where it is."""
    if isinstance(stage, OnlineStage) and not agent.online:
        return "learns from a recording alone, and this stage is of kind online"
    if isinstance(stage, OfflineStage) and not agent.offline:
        return "learns in the simulator, and this stage is of kind offline"
    if sizes.discrete and not agent.discrete:
        return "is for actions that are numbers, and this task's are one of several choices"
    if not sizes.discrete and not agent.continuous:
        return "is for actions that are one of several choices, and this task's are numbers"
    if agent.goals and not sizes.goal_dim:
        return "needs a task that shows its goal, such as pointmaze-medium-shown"
    return ""


def _chunks(made: Plan) -> Iterator[Problem]:
    """An episode is at least as long as what the policy decides on at once."""
    longest = made.card.max_episode_steps
    for name, block in made.resolved["stages"].items():
        if (chunk := block.get("config", {}).get("chunk", 1)) > longest:
            text = f"expected at most the longest episode ({longest}), got {chunk}"
            yield Problem(("stages", name, "config", "chunk"), text)


def _goals(made: Plan, sizes: Spec) -> Iterator[Problem]:
    """The agents can be made for this task, and goals are drawn anew only where the policy sees them."""
    for name, stage in made.spec.stages.items():
        if isinstance(stage, OfflineStage | OnlineStage):
            try:
                found = goal_problem(made.card, stage, make_agent(stage.agent, stage.config, sizes))
            except ToolkitError as error:
                found = Problem(("config",), str(error))
            if found:
                yield _inside(name, found)


def _seams(made: Plan, sizes: Spec) -> Iterator[Problem]:
    """Every seam, tried on fresh states: what does not fit is an error now, not after the offline stage."""
    for name, stage in made.spec.stages.items():
        if isinstance(stage, OnlineStage) and stage.start:
            source = made.spec.stages[stage.start]
            assert isinstance(source, OfflineStage)
            before, after = (make_agent(one.agent, one.config, sizes) for one in (source, stage))
            try:
                carry(_fresh(before), _fresh(after), stage.seam, AGENTS[stage.agent].carries)
            except SeamError as error:
                yield _inside(name, error.problem)
                continue
            for setting in ("fourier", "places"):  # shapes do not tell: the same networks would read other numbers
                expected, got = (json.dumps(getattr(agent.cfg, setting, None)) for agent in (before, after))
                if expected != got and "null" not in (expected, got):
                    text = f"expected {expected} as in {stage.start}, whose networks carry over; got {got}"
                    yield Problem(("stages", name, "config", setting), text)


def _rollouts(made: Plan) -> Iterator[Problem]:
    """There is something to learn from, and every episode can be seen to its end where that is needed."""
    longest = made.card.max_episode_steps
    for name, stage in made.spec.stages.items():
        if not isinstance(stage, OnlineStage) or not CONFIGS[stage.agent].on_policy:
            continue
        config: Any = CONFIGS[stage.agent].model_validate(stage.config)
        steps = stage.rollout or longest
        if config.whole_episodes and steps < longest:
            text = (
                f"{stage.agent} with advantage {config.advantage} learns from whole episodes; "
                f"expected at least the longest episode ({longest}), got {steps}"
            )
            yield Problem(("stages", name, "rollout"), text)
        elif planned_updates(stage, made.card) == 0:
            text = (
                f"expected at least one rollout, {steps} steps of {stage.envs} environments ({steps * stage.envs}); "
                f"got {stage.env_steps}"
            )
            yield Problem(("stages", name, "env_steps"), text)


def _inside(stage: str, found: Problem) -> Problem:
    return Problem(("stages", stage, *found.keys), found.text)


def _fresh(agent: Agent[Any]) -> Any:
    return stack([agent.init(torch.Generator().manual_seed(0))], torch.device("cpu"))
