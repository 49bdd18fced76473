"""Collecting, importing and evaluating, and the one place that knows every kind of stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit import checkpoint, mujoco_log
from toolkit.catalog import DATA
from toolkit.collect import collect
from toolkit.console import judged_by
from toolkit.data.imported import checked, joined
from toolkit.evaluate import EvalResult, evaluate
from toolkit.pipeline.context import Context
from toolkit.pipeline.folder import MANIFEST
from toolkit.pipeline.pictures import write_pieces, write_routes
from toolkit.pipeline.record import run_record
from toolkit.pipeline.spec import (
    CollectStage,
    EvaluateStage,
    ImportStage,
    OfflineStage,
    OnlineStage,
    RecordingStage,
    RecordStage,
    StitchStage,
)
from toolkit.pipeline.stitch import run_stitch
from toolkit.pipeline.training import Found, no_far_starts, run_offline, run_online
from toolkit.pipeline.watch import FINAL_EPISODES, summarise
from toolkit.policy import Policy, load_policy
from toolkit.processes import cores
from toolkit.recordings import (
    find_data,
    misfit,
    open_parts,
    provenance,
    read_places,
    reading,
    relabelled,
    returns,
    write,
)
from toolkit.stitching import coverage, exits
from toolkit.types import Json, ToolkitError


def run_stage(context: Context, name: str, found: Found | None) -> Json:
    """Carry out one stage, from a checkpoint where one is `found`; its result for the manifest."""
    match context.plan.spec.stages[name]:
        case CollectStage() as stage:
            return run_collect(context, name, stage)
        case ImportStage() as stage:
            return run_import(context, name, stage)
        case RecordStage() as stage:
            return _recorded(context, name, run_record(context, name, stage))
        case OfflineStage() as stage:
            return run_offline(context, name, stage, found)
        case OnlineStage() as stage:
            return run_online(context, name, stage, found)
        case EvaluateStage() as stage:
            return run_evaluate(context, name, stage)
        case StitchStage() as stage:
            return run_stitch(context, name, stage)


def leftovers(context: Context, name: str) -> list[Path]:
    """Folders outside the stage's own that it fills."""
    stage = context.plan.spec.stages[name]
    return [context.plan.dataset(context.folder.data, name)] if isinstance(stage, RecordingStage) else []


def unfinished_checkpoint(context: Context, name: str) -> Found | None:
    """The checkpoint of an unfinished stage, if it belongs to the stage as it is planned now."""
    folder = context.checkpoint(name)
    finished = (context.folder.stage(name) / MANIFEST).exists()  # once; what it left is no longer that
    if finished or not checkpoint.exists(folder):
        return None
    try:
        tensors, meta = checkpoint.load(folder)
    except checkpoint.CheckpointError as error:
        context.console.note(f"{name}: {error}; the stage starts afresh")
        return None
    return (tensors, meta) if meta.get("key") == context.plan.keys[name] else None


def run_collect(context: Context, name: str, stage: CollectStage) -> Json:
    """Record demonstrations into the run's Minari root."""
    recipe, card = context.plan.recipes[name], context.plan.card
    context.console.stage_started(name, recipe.episodes, "episodes")
    workers = cores() if stage.workers == "auto" else stage.workers
    dataset = collect(
        recipe,
        card,
        context.folder.data,
        seed=stage.seed,
        workers=workers,
        progress=lambda done, _: context.console.advance(done),
        replace=True,
    )
    return _recorded(context, name, dataset)


def run_import(context: Context, name: str, stage: ImportStage) -> Json:
    """Take a recording into the run's Minari root, as the audit lets it pass; logs of states are played.

    Raises ToolkitError where it cannot be read, is not sound, or was made with other observations or actions.
    """
    card, dataset = context.plan.card, context.plan.dataset(context.folder.data, name)
    context.console.stage_started(name, 1, "recordings")
    path = find_data(stage.source, DATA)
    options = reading(card, stage.achieved)
    parts = [mujoco_log.replay(path, card, options)] if mujoco_log.is_log(path) else open_parts(path, options)
    sources = []
    for part in parts:
        if unfit := misfit(part.episodes, card):
            raise ToolkitError(f"{path}: {unfit}")
        sources.append(part.source)
    root = context.folder.data
    write(
        (checked(part) for part in parts),
        dataset.relative_to(root).as_posix(),
        root,
        made=provenance("import", [joined(sources)]),
        card=card,
        replace=True,
    )
    context.console.advance(1)
    return _recorded(context, name, dataset)


def _recorded(context: Context, name: str, dataset: Path) -> Json:
    """What a recording is like; a picture's pieces lie beside the manifest."""
    card = context.plan.card
    recorded = read_places(dataset)
    episodes = relabelled(recorded, card)
    if card.in_maze:
        write_pieces(context.folder.stage(name) / "pieces.json", episodes)
    result: Json = {
        "episodes": len(recorded),
        "transitions": recorded.transitions,
        "returns": returns(episodes),
    }
    if card.goal_xy is not None:
        result["exits"] = exits(episodes, card.maze)
        covered = coverage(episodes, card.maze, card.goal_xy, card.goal.radius)
        if not covered.far_starts:
            _refuse_far(context, name)
        result["coverage"] = covered.summary()
    return result | {"dataset": str(dataset.resolve().relative_to(context.folder.root.resolve()))}


def _refuse_far(context: Context, name: str) -> None:
    """Raises ToolkitError where a later stage begins its episodes where this recording has nothing to begin."""
    spec = context.plan.spec
    for later, stage in spec.stages.items():
        of = stage.of if isinstance(stage, EvaluateStage) else (later,)
        # who goes on from another stage takes over its far starts
        first = [getattr(spec.stages[source], "start", None) or source for source in of]
        if getattr(stage, "starts", "") == "far" and any(spec.data_of(source) == name for source in first):
            raise no_far_starts(later)


def run_evaluate(context: Context, name: str, stage: EvaluateStage) -> Json:
    """Measure each named stage's last policy, from far starts and from all where far ones are asked for.

    The stage's own success is that of the last policy named, from the starts asked for.
    """
    seeds, every = len(context.seeds), ("far", "all") if stage.starts == "far" else ("all",)
    per_policy = seeds * stage.episodes
    context.console.stage_started(name, per_policy * len(stage.of) * len(every), "episodes")
    result: Json = {"of": {}}
    done = 0
    for source in stage.of:
        policy = load_policy(context.checkpoint(source))
        measured: dict[str, Any] = {}
        for starts in every:
            played = _play(context, stage, policy, starts, done)
            measured[starts] = summarise(played)
            done += per_policy
            if starts == stage.starts:
                path = context.folder.stage(name) / "routes.json"
                write_routes(path, played, context.plan.card, context.seeds, policy.far_starts)
        result["of"][source] = measured
        own, measure = measured[stage.starts], judged_by(measured[stage.starts])
        context.console.advance(done, {f"{source} {measure}": own[measure]["per_seed"]})
    return {**result, **result["of"][stage.of[-1]][stage.starts], "starts": stage.starts}


def _play(context: Context, stage: EvaluateStage, policy: Policy, starts: str, done: int) -> EvalResult:
    return evaluate(
        policy.act,
        context.plan.card,
        seeds=len(policy.seeds),
        episodes=stage.episodes,
        starts=policy.far_starts if starts == "far" else None,
        workers=cores() if stage.workers == "auto" else stage.workers,
        base_seed=FINAL_EPISODES,
        record_routes=starts == stage.starts,
        progress=lambda now, _: context.console.advance(done + now),
    )
