"""Figures and tables to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from toolkit.console import duration, number, rate
from toolkit.report import figures
from toolkit.report.maze_picture import maze_figures, route_figures
from toolkit.report.run import Run, read_run


def write_report(run_dir: Path | str) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    Sections whose data is missing are left out. ToolkitError where the folder holds no run.
    """
    folder = Path(run_dir)
    text = render(read_run(folder))
    path = folder / "report.html"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def render(run: Run) -> str:
    """The page of a run."""
    environment = Environment(
        loader=PackageLoader("toolkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "score": _shown(run), "duration": _duration}
    style, script = (Markup(_source(name)) for name in ("page.css", "page.js"))
    more = [] if run.measure == "return" else figures.learning_figures(run, "eval/return", "Return")
    more += figures.learning_figures(run, "eval/path_ratio", "Route over shortest")
    return environment.get_template("page.html").render(
        run=run,
        style=style,
        script=script,
        policy=_policy(style, script),
        facts=_facts(run),
        scores=figures.score_figure(run),
        learning=figures.learning_figures(run, f"eval/{run.measure}", run.measure.capitalize()),
        more=more,
        switch=figures.switch_figure(run),
        switch_facts=_switch_facts(run),
        values=figures.value_figures(run),
        maze=[*maze_figures(run), *figures.stitching_figures(run), *route_figures(run)],
        far=any(stage.routes and stage.routes.get("far_starts") for stage in run.stages),
        losses=figures.loss_figures(run),
        stages=_stage_rows(run),
    )


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Content security policy: this page's own style and script, and nothing from anywhere."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _number(value: Any) -> str:
    text = number(value) if isinstance(value, int | float) else "-"
    return "–" if text == "-" else text.replace("-", "−")


def _rate(value: Any) -> str:
    return rate(value).replace("-", "–") if isinstance(value, int | float) else "–"


def _shown(run: Run) -> Callable[[Any], str]:
    """How the run's scores are written."""
    return _rate if run.measure == "success" else _number


def _duration(seconds: float) -> str:
    return "–" if math.isnan(seconds) else duration(seconds)


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """The numbers beside the headline: label, value, what to know about it."""
    facts = []
    if run.before and run.before.score:
        score, show = run.before.score, _shown(run)
        interval = f"95 % interval {show(score.low)} to {show(score.high)}" if not math.isnan(score.low) else ""
        facts.append(("Before going online", show(score.iqm), f"after {run.before.name}, {interval}"))
    if run.after and not math.isnan(run.after.path_ratio):
        facts.append(("Route", f"{_number(run.after.path_ratio)} ×", "the shortest way"))
    if not math.isnan(run.wall_s):
        memory = "" if math.isnan(run.peak_rss_mb) else f"{run.peak_rss_mb / 1024:.1f} GiB of memory at most"
        facts.append(("Time", _duration(run.wall_s), memory))
    return facts


def _switch_facts(run: Run) -> list[tuple[str, str, str]]:
    switch = run.switch
    recovery = switch.get("recovery_env_steps", math.nan)
    known = isinstance(recovery, int | float) and math.isfinite(recovery)
    rows = [
        ("Before", _rate(switch.get("before")), "success of the policy that went online"),
        ("Dip", _rate(switch.get("dip")), "deepest fall of success below that"),
        ("Back after", f"{recovery:,.0f}", "environment steps") if known else ("Back", "not yet", "in this run"),
        ("Regret", _number(switch.get("regret")), "mean of 1 − success over all evaluations online"),
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
