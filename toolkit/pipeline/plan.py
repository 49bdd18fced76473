"""A pipeline file to a plan: everything checked that can be checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from toolkit.agents import AGENTS, CONFIGS, Agent
from toolkit.catalog import DATA
from toolkit.collect import dataset_id
from toolkit.config import dump
from toolkit.controllers import Recipe, load_recipe
from toolkit.files import sha256
from toolkit.learner import stack
from toolkit.pipeline.context import Plan
from toolkit.pipeline.estimate import planned_updates
from toolkit.pipeline.goals import check_goals
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.material import make_agent, task_sizes
from toolkit.pipeline.outline import outline
from toolkit.pipeline.seam import carry
from toolkit.pipeline.spec import (
    CollectStage,
    EvaluateStage,
    ImportStage,
    OfflineStage,
    OnlineStage,
    PipelineSpec,
    RecordingStage,
    Stage,
    StitchStage,
    TrainingStage,
)
from toolkit.recordings import find_data
from toolkit.tasks import TaskCard, load_card, unseen_env
from toolkit.types import Json, Spec, ToolkitError

# Say how to work, not what comes out.
_WITHOUT_EFFECT = {"workers", "checkpoint_every_s"}
# Modules that change what a person sees, not what a stage leaves.
_BESIDE = {
    "cli.py",
    "cli_data.py",
    "cli_measure.py",
    "command.py",
    "console",
    "export",
    "fqe.py",
    "log.py",
    "report",
    "sweep.py",
}


def make_plan(file: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read and check a pipeline with all that it names. Raises ToolkitError; writes nothing."""
    spec = load_spec(file, overrides)
    card = load_card(spec.task)
    recipes = {name: _recipe(stage) for name, stage in spec.stages.items() if isinstance(stage, CollectStage)}
    resolved = dump(spec)
    for block in resolved["stages"].values():
        if "agent" in block:
            block["config"] = dump(CONFIGS[block["agent"]].model_validate(block["config"]))
    inputs = {row.stage: row.inputs for row in outline(spec)}
    made = Plan(spec, card, recipes, resolved, _keys(spec, card, recipes, resolved, inputs), inputs)
    _check_recordings(made)
    _check_task(made)
    _check_starts(made)
    sizes = task_sizes(card)
    _check_agents(made, sizes)
    _check_goals(made, sizes)
    _check_chunks(made)
    _check_seams(made, sizes)
    _check_rollouts(made)
    return made


def dependents(made: Plan, name: str) -> set[str]:
    """A stage and all that follow from it."""
    found = {name}
    for other, sources in made.inputs.items():  # in the order of the pipeline, so one pass is enough
        if found & set(sources):
            found.add(other)
    return found


def _recipe(stage: CollectStage) -> Recipe:
    recipe = load_recipe(stage.recipe)
    return recipe.model_copy(update={"episodes": stage.episodes}) if stage.episodes else recipe


def _keys(
    spec: PipelineSpec, card: TaskCard, recipes: dict[str, Recipe], resolved: Json, inputs: dict[str, tuple[str, ...]]
) -> dict[str, str]:
    """What a stage's result follows from, as a hash: its settings, its inputs', the task, the seeds and the code."""
    keys: dict[str, str] = {}
    for name in spec.stages:
        parts = {
            "stage": {k: v for k, v in resolved["stages"][name].items() if k not in _WITHOUT_EFFECT},
            "inputs": [keys[source] for source in inputs[name]],
            "recipe": dump(recipes[name]) if name in recipes else None,
            "source": _content(spec.stages[name]),
            "models": [sha256(path) for path in recipes[name].models if path.is_file()] if name in recipes else [],
            "task": dump(card),
            "seeds": list(spec.seeds),
            "code": code_version(),
        }
        keys[name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return keys


def _content(stage: Stage) -> list[str] | None:
    """Hashes of what an import stage takes in."""
    if not isinstance(stage, ImportStage):
        return None
    path = find_data(stage.source, DATA)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [sha256(file) for file in files]


@cache
def code_version() -> str:
    """Hash of the package's source, but for what only shows results."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in _BESIDE:
            digest.update(f"{relative}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _check_recordings(made: Plan) -> None:
    """Two collect stages must not fill the same data set."""
    ids = sorted((dataset_id(recipe, made.card), name) for name, recipe in made.recipes.items())
    for (first, one), (second, other) in pairwise(ids):
        if first == second:
            raise ToolkitError(f"stages {one} and {other} both record {first}; give one of them a recipe of its own")


def _check_task(made: Plan) -> None:
    """The simulator can be made, recipes can drive in it, and nothing goes by a success that the data does not tell."""
    env = unseen_env(made.card)
    for recipe in made.recipes.values():
        recipe.controllers(env.card.env_id, env.maze, env.actions.control_dim)
    for name, block in made.resolved["stages"].items():
        if isinstance(made.spec.stages[name], StitchStage) and not made.card.in_maze:
            raise ToolkitError(f"{name}: stitches are counted between a maze's cells, task {made.card.name} has none")
        if made.card.reward.rule == "env" and block.get("config", {}).get("by") == "success":
            raise ToolkitError(
                f"{name}.config.by: task {made.card.name} does not say what success is; expected return, got success"
            )
        if made.card.reward.rule == "env" and block.get("guard"):
            raise ToolkitError(
                f"{name}.guard: goes by success, and task {made.card.name} does not say what that is; expected null"
            )


def _check_starts(made: Plan) -> None:
    """Far starts are known only where a recording and a fixed goal are."""
    for name, stage in made.spec.stages.items():
        if isinstance(stage, RecordingStage | StitchStage) or stage.starts != "far":
            continue
        sources = stage.of if isinstance(stage, EvaluateStage) else (name,)
        for source in sources:
            training: Any = made.spec.stages[source]
            if made.card.goal_xy is None or (
                made.spec.data_of(source) is None and not getattr(training, "start", None)
            ):
                why = "the task has no fixed goal" if made.card.goal_xy is None else f"{source} has no recording"
                raise ToolkitError(f"{name}.starts: far needs to know what the data joins, but {why}; use all")


def _check_agents(made: Plan, sizes: Spec) -> None:
    """Refuse an algorithm in a stage, or on a task, that it is not for."""
    for name, stage in made.spec.stages.items():
        if not isinstance(stage, OfflineStage | OnlineStage):
            continue
        agent = AGENTS[stage.agent]
        if why := _unfit(agent, stage, sizes):
            fits = ", ".join(other for other, kind in AGENTS.items() if not _unfit(kind, stage, sizes))
            raise ToolkitError(f"{name}.agent: {stage.agent} {why}; expected one of {fits}")
        if agent.carries and isinstance(stage, OnlineStage) and stage.start is None:
            raise ToolkitError(
                f"{name}.start: expected a stage of kind offline, whose {' and '.join(agent.carries.values())} "
                f"{stage.agent} takes over; got nothing"
            )


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
        return "needs to see the goal, and this task does not show it (goal.observed: false)"
    return ""


def _check_goals(made: Plan, sizes: Spec) -> None:
    """Goals can be drawn anew only where the policy sees them."""
    for name, stage in made.spec.stages.items():
        if isinstance(stage, OfflineStage | OnlineStage):
            check_goals(made.card, name, stage, make_agent(stage.agent, stage.config, sizes))


def _check_chunks(made: Plan) -> None:
    """An episode is at least as long as what the policy decides on at once."""
    for name, block in made.resolved["stages"].items():
        chunk, longest = block.get("config", {}).get("chunk", 1), made.card.max_episode_steps
        if chunk > longest:
            raise ToolkitError(f"{name}.config.chunk: expected at most the longest episode ({longest}), got {chunk}")


def _check_seams(made: Plan, sizes: Spec) -> None:
    """Try every seam on fresh states: what does not fit is an error now, not after the offline stage."""
    for name, stage in made.spec.stages.items():
        if isinstance(stage, OnlineStage) and stage.start:
            source = made.spec.stages[stage.start]
            assert isinstance(source, OfflineStage)
            carry(_fresh(source, sizes), _fresh(stage, sizes), stage.seam, name, AGENTS[stage.agent].carries)


def _check_rollouts(made: Plan) -> None:
    """There is something to learn from, and every episode can be seen to its end where that is needed."""
    longest = made.card.max_episode_steps
    for name, stage in made.spec.stages.items():
        if not isinstance(stage, OnlineStage) or not CONFIGS[stage.agent].on_policy:
            continue
        config: Any = CONFIGS[stage.agent].model_validate(stage.config)
        steps = stage.rollout or longest
        if config.whole_episodes and steps < longest:
            raise ToolkitError(
                f"{name}.rollout: {stage.agent} with advantage {config.advantage} learns from whole episodes; "
                f"expected at least the longest episode ({longest}), got {steps}"
            )
        if planned_updates(stage, made.card) == 0:
            raise ToolkitError(
                f"{name}.env_steps: expected at least one rollout, {steps} steps of {stage.envs} environments "
                f"({steps * stage.envs}); got {stage.env_steps}"
            )


def _fresh(stage: TrainingStage, sizes: Spec) -> Any:
    agent = make_agent(stage.agent, stage.config, sizes)
    return stack([agent.init(torch.Generator().manual_seed(0))], torch.device("cpu"))
