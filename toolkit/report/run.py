"""What a run folder holds, read so that a missing or unfinished part is absent and nothing else fails."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit import strict_yaml
from toolkit.console import before_and_after, judged_by
from toolkit.log import read_metrics
from toolkit.types import Floats, Json, ToolkitError

FILMS = (".mp4", ".gif")


@dataclass(frozen=True)
class Score:
    """A success rate or return: middle, 95 % interval, one number per seed; NaN and empty where unknown."""

    iqm: float
    low: float
    high: float
    per_seed: Sequence[float]
    episodes: int | None


@dataclass(frozen=True)
class Stage:
    """One stage of the run, with what its folder holds."""

    name: str
    kind: str
    agent: str
    wall_s: float
    score: Score | None  # by the run's measure
    tasks: Mapping[str, Score]  # success in each of the card's tasks, where it has any
    path_ratio: float
    rows: Sequence[Json]  # of metrics.jsonl
    routes: Json | None
    pieces: Json | None
    stitching: Json | None
    starts: str  # far or all, of its last evaluation; empty where unknown
    start: str  # the stage it goes on from; empty where from none
    plan: Json  # its settings in pipeline.yaml

    def episodes(self, steps: Floats) -> Floats:
        """How many each seed played in the evaluations at these steps (n,); NaN where the plan does not say."""
        total = real(self.plan.get("updates" if self.kind == "offline" else "env_steps"))
        early, last = (real(self.plan.get(f"{when}_episodes")) for when in ("eval", "final"))
        return np.where(steps < total, early, last)


@dataclass(frozen=True)
class Run:
    """A run folder."""

    name: str
    description: str
    task: str
    seeds: Sequence[int]
    stages: Sequence[Stage]
    measure: str  # success, or return where the task does not say what success is
    baselines: Sequence[tuple[str, str, Score]]  # what each is called, its stage
    before: Stage | None
    after: Stage | None
    switch: Json
    guard: Sequence[Json]  # what it rolled back, in the order of the stages
    return_range: tuple[float, float]  # of the returns that are possible; NaN where unknown
    wall_s: float
    peak_rss_mb: float
    versions: Json
    config: str
    stitching: Sequence[Json]  # of `toolkit stitch`, else of the pipeline's own stages
    films: Sequence[str]  # files beside the report, in videos/
    unfinished: str  # how far it is, empty where it is done

    def curves(self, kind: str) -> list[Stage]:
        """Stages of a kind that measured anything."""
        return [stage for stage in self.stages if stage.kind == kind and stage.rows]

    @property
    def switched(self) -> list[Stage]:
        """The online stage whose first steps are shown: the last that goes on from another, else the first."""
        online = self.curves("online")
        return [stage for stage in online if stage.start][-1:] or online[:1]


def is_run(folder: Path) -> bool:
    """Whether a folder looks like that of a run."""
    return (folder / "stages").is_dir() or (folder / "summary.json").is_file()


def read_run(folder: Path) -> Run:
    """Read a run folder; ToolkitError where it is none, or a file in it is no JSON."""
    folder = Path(folder)
    if not is_run(folder):
        raise ToolkitError(f"{folder}: expected a run folder with summary.json or stages/, found neither")
    found = _json(folder / "summary.json")
    config = folder / "pipeline.yaml"
    plan = strict_yaml.read(config).value if config.is_file() else None
    plan = plan if isinstance(plan, dict) else {}
    done, stale = ({}, set()) if found else _done(folder)
    summary = found or {"stages": {name: {} for name in _dict(plan.get("stages"))} | done}
    names = _stage_names(folder, summary, plan, stale)
    planned = {name: _dict(_dict(plan.get("stages")).get(name)) for name in names}
    entries = {name: _entry(_dict(summary.get("stages")).get(name), planned[name]) for name in names}
    baselines = {name: _dict(entry) for name, entry in _dict(summary.get("baselines")).items()}
    summary = summary | {"stages": entries, "baselines": baselines}
    measures = {judged_by(entry) for entry in entries.values() if score(entry.get(judged_by(entry)))}
    measure = "return" if measures == {"return"} else "success"
    files = {name: None if name in stale else folder / "stages" / name for name in names}
    stages = {name: _stage(files[name], name, entries[name], planned[name], measure) for name in names}
    before, after = before_and_after(summary)
    low, high = summary.get("return_range") or (None, None)
    scores = [(name, str(entry.get("stage") or ""), score(entry.get(measure))) for name, entry in baselines.items()]
    return Run(
        name=str(summary.get("name") or plan.get("name") or folder.resolve().name),
        description=str(summary.get("description") or plan.get("description") or ""),
        task=str(summary.get("task") or plan.get("task") or ""),
        seeds=summary.get("seeds") or plan.get("seeds") or [],
        stages=list(stages.values()),
        measure=measure,
        baselines=[(name, stage, score) for name, stage, score in scores if score],
        before=stages[before] if before and stages[before].score else None,
        after=stages[after] if after and stages[after].score else None,
        switch=_dict(summary.get("switch")) or _switch(entries, stages),
        guard=[line for entry in entries.values() for line in entry.get("guard") or []],
        return_range=(real(low), real(high)),
        wall_s=real(summary.get("wall_s")),
        peak_rss_mb=real(summary.get("peak_rss_mb")),
        versions=_dict(summary.get("versions")),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        stitching=_stitching(folder, stages),
        films=sorted(f"videos/{path.name}" for path in (folder / "videos").glob("*") if path.suffix in FILMS),
        unfinished="" if found else _progress(_dict(plan.get("stages")), done),
    )


def _done(folder: Path) -> tuple[Json, set[str]]:
    """What the summary will have of the stages that are done already; those done under other settings than now."""
    manifests = {path.parent.name: _json(path) or {} for path in (folder / "stages").glob("*/manifest.json")}
    keys = _json(folder / "keys.json") or {name: made.get("key") for name, made in manifests.items()}
    kept = {name: made for name, made in manifests.items() if name in keys and made.get("key") == keys[name]}
    done = {name: {"wall_s": made.get("wall_s"), **_dict(made.get("result"))} for name, made in kept.items()}
    return done, manifests.keys() - done.keys()


def _switch(entries: Mapping[str, Json], stages: Mapping[str, Stage]) -> Json:
    """Of an unfinished run, what the switch that is shown has cost."""
    begun = [name for name, stage in stages.items() if stage.kind == "online" and stage.start and stage.rows]
    return _dict(entries[begun[-1]].get("switch")) if begun else {}


def _progress(planned: Json, done: Json) -> str:
    """How far an unfinished run is."""
    missing = [name for name in planned if name not in done]
    at = f", {missing[0]} is next" if missing else ""
    return f"{len(planned) - len(missing)} of {len(planned)} stages are done{at}"


def real(value: Any) -> float:
    """A number, or the middle of a summary of numbers; NaN for anything else."""
    if isinstance(value, dict):
        value = value.get("iqm")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _stitching(folder: Path, stages: dict[str, Stage]) -> list[Json]:
    measured = (_json(folder / "stitch.json") or {}).get("runs")
    return measured if isinstance(measured, list) else [s.stitching for s in stages.values() if s.stitching]


def _stage_names(folder: Path, summary: Json, plan: Json, stale: set[str]) -> list[str]:
    """In the order of the plan; what it does not name comes last."""
    known = list(_dict(summary.get("stages")))
    found = sorted(path.name for path in (folder / "stages").glob("*") if path.is_dir() and path.name not in stale)
    planned = [name for name in _dict(plan.get("stages")) if name in known or name in found]
    return list(dict.fromkeys([*planned, *known, *found]))


def _entry(found: Any, plan: Json) -> Json:
    """What the summary has of a stage, and what the plan alone says of it."""
    return {key: plan[key] for key in ("kind", "agent", "start") if plan.get(key)} | _dict(found)


def _stage(files: Path | None, name: str, entry: Json, plan: Json, measure: str) -> Stage:
    rows = read_metrics(files / "metrics.jsonl") if files else []
    content = {what: _json(files / f"{what}.json") if files else None for what in ("routes", "pieces", "stitch")}
    phases = {row["phase"] for row in rows}
    agent = entry.get("agent") or ""
    return Stage(
        name=name,
        kind=str(entry.get("kind") or ("online" if "online" in phases else "offline")),
        agent=str(agent.get("name", "") if isinstance(agent, dict) else agent),
        wall_s=real(entry.get("wall_s")),
        score=score(entry.get(measure)),
        tasks={name: found for name, value in _dict(entry.get("tasks")).items() if (found := score(value))},
        path_ratio=real(entry.get("path_ratio")),
        rows=rows,
        routes=content["routes"],
        pieces=content["pieces"],
        stitching=content["stitch"],
        starts=str(plan.get("starts") or ""),
        start=str(entry.get("start") or ""),
        plan=plan,
    )


def score(value: Any) -> Score | None:
    """A score in a summary; None where there is none."""
    middle = real(value)
    if not isinstance(value, dict) or math.isnan(middle):
        return None
    low, high = (real(bound) for bound in value.get("ci95") or (None, None))
    episodes = value.get("episodes")
    per_seed = [real(x) for x in value.get("per_seed") or []]
    return Score(middle, low, high, per_seed, episodes if isinstance(episodes, int) else None)


def _json(path: Path) -> Json | None:
    if not path.is_file():
        return None
    try:
        return _dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ToolkitError(f"{path}: expected JSON, got something else ({error}); run its stage again") from None


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
