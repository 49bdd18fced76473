"""A pipeline file to a plan: everything checked that can be checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from toolkit.agents import CONFIGS
from toolkit.catalog import DATA, find
from toolkit.config import dump, located
from toolkit.controllers import Recipe, load_recipe
from toolkit.data.columns import of_columns
from toolkit.files import sha256
from toolkit.pipeline.checks import problems
from toolkit.pipeline.context import Plan
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.spec import CollectStage, ImportStage, PipelineSpec, Stage
from toolkit.recordings import find_data
from toolkit.tasks import TaskCard, load_card
from toolkit.tasks.registry import source_of
from toolkit.types import Json

# Say how to work, not what comes out.
_WITHOUT_EFFECT = {"workers", "checkpoint_every_s"}
# Modules that change what a person sees, not what a stage leaves.
_BESIDE = {
    "__main__.py",
    "advise.py",
    "assess.py",
    "cli.py",
    "cli_data.py",
    "cli_measure.py",
    "command.py",
    "console",
    "export",
    "fqe.py",
    "report",
    "sweep.py",
    "video.py",
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
    inputs = {name: spec.inputs(name) for name in spec.stages}
    made = Plan(spec, card, recipes, resolved, _keys(spec, card, recipes, resolved, inputs), inputs)
    if found := problems(made):
        raise located(find("pipelines", file), PipelineSpec, overrides, found)
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
    keys, simulator = dict[str, str](), source_of(card.env_id)
    for name in spec.stages:
        parts = {
            "stage": {k: v for k, v in resolved["stages"][name].items() if k not in _WITHOUT_EFFECT},
            "inputs": [keys[source] for source in inputs[name]],
            "recipe": dump(recipes[name]) if name in recipes else None,
            "source": _content(spec.stages[name]),
            "models": [sha256(path) for path in recipes[name].models if path.is_file()] if name in recipes else [],
            "task": dump(card),
            "simulator": sha256(simulator) if simulator else None,
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
    below = sorted(file for file in path.rglob("*") if file.is_file() and not of_columns(file))
    return [sha256(file) for file in (below if path.is_dir() else [path])]


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
