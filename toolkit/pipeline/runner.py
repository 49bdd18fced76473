"""Carrying out a pipeline: order, skipping, going on, summary (level 4)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from toolkit import strict_yaml
from toolkit.config import one_of
from toolkit.console import Console
from toolkit.console.terminal import View
from toolkit.console.words import duration, judged_by, number
from toolkit.files import write_json, write_text
from toolkit.pipeline.context import Context, Plan
from toolkit.pipeline.estimate import estimate
from toolkit.pipeline.folder import KEYS, PIPELINE, SUMMARY, RunFolder, check_usable, choose
from toolkit.pipeline.interrupt import Interrupt
from toolkit.pipeline.outline import outline
from toolkit.pipeline.plan import dependents, make_plan
from toolkit.pipeline.stages import leftovers, run_stage, unfinished_checkpoint
from toolkit.pipeline.summary import peak_rss_mb, summarise_run, versions
from toolkit.report import write_report
from toolkit.types import Json, ToolkitError

OUTDATED = "was done with other settings, inputs or code, and is done anew"


def run_pipeline(
    file: str | Path,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    start_from: str | None = None,
    progress: View = "auto",
    dry_run: bool = False,
) -> Json:
    """Run a pipeline, or go on with it where it stopped; returns what `summary.json` holds.

    `out` is the run folder, by default `runs/NAME-N`. Stages that are done under the same settings, inputs and code
    are skipped; `start_from` runs that stage and what follows from it again. A dry run returns the plan and an
    estimate and writes nothing. Raises ToolkitError for what the user can mend; SIGINT and SIGTERM save and leave
    with KeyboardInterrupt and SystemExit(143).
    """
    plan = make_plan(file, overrides)
    again = _again(plan, start_from)
    resolved = strict_yaml.render(plan.resolved)
    root = Path(out) if out is not None else choose(plan.spec.name, resolved, bool(again))
    check_usable(root, plan.spec.name, plan.spec.task)
    if dry_run:
        return _preview(plan, RunFolder(root), again)
    with Interrupt() as interrupt, RunFolder(root) as folder, Console(progress) as console:
        context = Context(plan, folder, console, interrupt)
        console.note(f"Run folder: {root}")
        write_text(root / PIPELINE, resolved)
        write_json(root / KEYS, plan.keys)  # by which a report tells what was done under other settings
        try:
            summary = _carry_out(context, again)
        except (KeyboardInterrupt, SystemExit):
            same = "the same command without --from" if again else "the same command"
            console.note(f"What is done is kept; {same} goes on from there.")
            raise
        report = write_report(root)
        console.final_table(summary, report)
    return summary


def _again(plan: Plan, start_from: str | None) -> set[str]:
    if start_from is None:
        return set()
    if start_from not in plan.spec.stages:
        raise ToolkitError(f"--from {start_from}: {one_of(plan.spec.stages, start_from)}")
    return dependents(plan, start_from)


def _carry_out(context: Context, again: set[str]) -> Json:
    """All stages in order, then the summary."""
    begun, earlier = time.monotonic(), 0.0
    context.console.pipeline(context.plan.spec.stages)
    for name in again:  # at once: whenever this is broken off, all of them are still to be done
        context.folder.begin(name)
    manifests: dict[str, Json] = {}
    for name, key in context.plan.keys.items():
        manifest = context.folder.finished(name, key)
        if manifest is not None:
            earlier += manifest["wall_s"]
            context.console.stage_finished(name, _line(manifest), skipped=True)
        else:
            if context.folder.outdated(name, key):
                context.console.note(f"{name} {OUTDATED}")
            manifest, before = _run(context, name)
            earlier += before
            context.console.stage_finished(name, _line(manifest))
        manifests[name] = manifest
    summary = summarise_run(context.plan, manifests, earlier + time.monotonic() - begun)
    write_json(context.folder.root / SUMMARY, summary)
    return summary


def _run(context: Context, name: str) -> tuple[Json, float]:
    """One stage to its manifest; also the seconds that earlier processes put into it."""
    begun = time.monotonic()
    folder = context.folder
    found = unfinished_checkpoint(context, name)
    if found is None:
        folder.begin(name)
    before = folder.elapsed(name)
    result = run_stage(context, name, found)
    manifest = {
        "kind": context.plan.spec.stages[name].kind,
        "key": context.plan.keys[name],
        "inputs": list(context.plan.inputs[name]),
        "config": context.plan.resolved["stages"][name],
        "result": result,
        "wall_s": round(before + time.monotonic() - begun, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "versions": versions(),
    }
    return folder.finish(name, manifest, leftovers(context, name)), before


def _line(manifest: Json) -> str:
    """What came of a stage, in a few words."""
    result = manifest["result"]
    if "stitching" in result:
        scores = {of: entry["score"] for of, entry in result["stitching"]["policies"].items()}
        return "stitching score " + ", ".join(
            f"{of} {number(score['iqm']) if score else '-'}" for of, score in scores.items()
        )
    if "return" in result:
        measure = judged_by(result)
        low, high = result[measure]["ci95"]
        return f"{measure} {number(result[measure]['iqm'])} ({number(low)} to {number(high)})"
    recorded = f"{result['episodes']:,} episodes, {result['transitions']:,} transitions"
    return f"{recorded}, mean return {number(result['returns']['mean'])}"


def _preview(plan: Plan, folder: RunFolder, again: set[str]) -> Json:
    """The plan as data and as lines to print."""
    costs = estimate(plan)
    stages, lines = [], [f"{plan.spec.name} into {folder.root}"]
    seconds = megabytes = 0.0
    for row in outline(plan.spec):
        skipped = row.stage not in again and folder.finished(row.stage, plan.keys[row.stage]) is not None
        cost = costs[row.stage]
        stages.append({**row._asdict(), "skipped": skipped, **cost})
        words = "already done" if skipped else f"about {duration(cost['seconds'])}, {cost['megabytes']:.0f} MB"
        words += f"; it {OUTDATED}" if folder.outdated(row.stage, plan.keys[row.stage]) else ""
        lines.append(f"  {row.stage:12} {row.kind:9} {row.what} ({words})")
        seconds += 0.0 if skipped else cost["seconds"]
        megabytes += 0.0 if skipped else cost["megabytes"]
    lines.append(f"  in all about {duration(seconds)} and {megabytes:.0f} MB; nothing was written")
    return {"out": str(folder.root), "stages": stages, "seconds": seconds, "megabytes": megabytes, "lines": lines}
