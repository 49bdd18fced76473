"""The page of one run: its figures, facts and tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from toolkit.console import rolled_back
from toolkit.files import write_text
from toolkit.log import series
from toolkit.report import figures
from toolkit.report.html import render_page, show_duration, show_number, show_score
from toolkit.report.maze_picture import maze_figures, route_figures
from toolkit.report.run import Run, read_run


def write_report(run_dir: Path | str) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    Sections whose data is missing are left out. ToolkitError where the folder holds no run.
    """
    folder = Path(run_dir)
    return write_text(folder / "report.html", render(read_run(folder)))


def render(run: Run) -> str:
    """The page of a run."""
    more = [] if run.measure == "return" else figures.learning_figures(run, "eval/return", "Return")
    more += figures.learning_figures(run, "eval/path_ratio", "Route over shortest")
    judged = [stage for stage in run.stages if stage.tasks]
    return render_page(
        "page.html",
        run.measure,
        run=run,
        facts=_facts(run),
        scores=figures.score_figure(run),
        learning=figures.learning_figures(run, f"eval/{run.measure}", run.measure.capitalize()),
        more=more,
        switch=figures.switch_figure(run),
        switch_facts=_switch_facts(run),
        switch_more=figures.switch_figures(run),
        guard=[rolled_back(line) for line in run.guard],
        values=figures.value_figures(run),
        maze=[*maze_figures(run), *figures.stitching_figures(run), *route_figures(run)],
        far=any(stage.routes and stage.routes.get("far_starts") for stage in run.stages),
        losses=figures.loss_figures(run),
        stages=_stage_rows(run),
        routed=any(not math.isnan(stage.path_ratio) for stage in run.stages),
        judged=judged,
        tasks=list(dict.fromkeys(task for stage in judged for task in stage.tasks)),
    )


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """The numbers beside the headline: label, value, what to know about it."""
    facts = []
    if run.before and run.before.score:
        score, show = run.before.score, show_score(run.measure)
        interval = f"95 % interval {show(score.low)} to {show(score.high)}" if not math.isnan(score.low) else ""
        facts.append(("Before going online", show(score.iqm), f"after {run.before.name}, {interval}"))
    if run.after and not math.isnan(run.after.path_ratio):
        facts.append(("Route", f"{show_number(run.after.path_ratio)} ×", "the shortest way"))
    if not math.isnan(run.wall_s):
        memory = "" if math.isnan(run.peak_rss_mb) else f"{run.peak_rss_mb / 1024:.1f} GiB of memory at most"
        facts.append(("Time", show_duration(run.wall_s), memory))
    return facts


def _switch_facts(run: Run) -> list[tuple[str, str, str]]:
    switch, measure, show = run.switch, run.measure, show_score(run.measure)
    recovery = switch.get("recovery_env_steps", math.nan)
    known = isinstance(recovery, int | float) and math.isfinite(recovery)
    steps = [series(stage.rows, f"eval/{measure}")[0] for stage in run.switched]
    apart = f", evaluated every {steps[0][1] - steps[0][0]:,.0f} steps" if steps and len(steps[0]) > 1 else ""
    lost = "1 − success" if measure == "success" else "what return is lacking to that"
    rows = [
        ("Before", show(switch.get("before")), f"{measure} of what went online, interquartile mean over seeds"),
        ("Dip", show(switch.get("dip")), f"deepest fall of {measure} below that{apart}"),
        ("Back after", f"{recovery:,.0f}", "environment steps") if known else ("Back", "not yet", "in this run"),
        ("Regret", show_number(switch.get("regret")), f"mean of {lost} over all evaluations online"),
    ]
    return rows if switch else []


def _stage_rows(run: Run) -> list[dict[str, Any]]:
    """One row a stage, `share` of the longest in tenths of a per cent."""
    times = [stage.wall_s for stage in run.stages if not math.isnan(stage.wall_s)]
    longest = max(times, default=0.0) or 1.0
    return [
        {"stage": stage, "share": 0 if math.isnan(stage.wall_s) else round(100 * stage.wall_s / longest, 1)}
        for stage in run.stages
    ]
