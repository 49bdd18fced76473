"""Which pictures a run gets: scores, learning curves, the switch, values, losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from markupsafe import Markup

from toolkit.console import number, rate
from toolkit.log import series
from toolkit.report.chart import COLOURS, RIGHT, TOP, WIDTH, Curve, Figure, curve_figure, ink
from toolkit.report.run import Run, Score, Stage, real
from toolkit.report.svg import Axis, tag, tick_label, value_axis
from toolkit.types import SWITCH_STEPS, Floats, Json

AXES = {"offline": "gradient steps", "online": "environment steps"}
BELIEFS = {
    "q_data": "Q on data",
    "q_policy": "Q on policy",
    "q_start": "Q at the start",
    "true_return": "true return",  # from the start
}
TO_DATA = {
    "offline_share": ("Recorded share", "Share of each batch that comes from the recording."),
    "action_distance": ("Distance to the data", "Between the policy's actions and those recorded in the same states."),
}
ORACLE = 6  # its colour, and that of baselines
SUCCESS = (-0.02, 1.04)  # of the axis: a line at 0 or 1 must not lie on the frame


def score_figure(run: Run) -> Figure | None:
    """Every measured success, or return: interval, middle and the seeds, one row each."""
    baselines = {stage for _, stage, _ in run.baselines}
    rows = [(f"{name} (baseline)", score, ORACLE) for name, _, score in run.baselines]
    shown = [stage for stage in run.stages if stage.score and stage.name not in baselines]
    rows += [
        (stage.name, stage.score, 1 if stage is run.after or not run.after else 2) for stage in shown if stage.score
    ]
    return score_rows(run.measure.capitalize(), rows, run.measure)


def score_rows(title: str, rows: Sequence[tuple[str, Score, int]], measure: str) -> Figure | None:
    """Label, score and colour in a row each; None where there is no row."""
    if not rows:
        return None
    gap, top = 38, 8
    x, show = Axis(0, 1, 158, WIDTH - 58), rate
    if measure == "return":
        everything = [[score.iqm, score.low, score.high, *score.per_seed] for _, score, _ in rows]
        x, show = value_axis(np.concatenate(everything), 158, WIDTH - 58), number
    bottom = top + gap * len(rows)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1) if measure == "success" else x.ticks():
        parts.append(tag("line", class_="grid", x1=x.at(tick), x2=x.at(tick), y1=top, y2=bottom))
        parts.append(tag("text", tick_label(tick), x=x.at(tick), y=bottom + 17, text_anchor="middle"))
    for place, (name, score, colour) in enumerate(rows):
        parts.append(_score_row(name, score, colour, x, top + gap * (place + 0.5), show(score.iqm)))
    words = "; ".join(f"{name} {show(score.iqm)}" for name, score, _ in rows)
    box = f"0 0 {WIDTH} {bottom + 24}"
    svg = tag("svg", *parts, viewBox=box, role="img", aria_label=f"{title}: {words}")
    return Figure(title, "Interquartile mean, 95 % interval and each seed (small circles).", svg)


def _score_row(name: str, score: Score, colour: int, x: Axis, y: float, words: str) -> Markup:
    short = name if len(name) < 24 else name[:22] + "…"
    parts = [tag("text", short, tag("title", name), x=0, y=y + 4, class_="name")]
    if math.isfinite(score.low) and math.isfinite(score.high):
        low, high = x.at(max(x.low, score.low)), x.at(min(x.high, score.high))
        width = max(high - low, 3.0)
        parts.append(
            tag("rect", class_=f"interval {ink('fill', colour)}", x=low, y=y - 7, width=width, height=14, rx=3)
        )
    for seed in score.per_seed:
        if math.isfinite(seed):
            parts.append(tag("circle", class_=f"ring {ink('line', colour)}", cx=x.at(seed), cy=y, r=3.5))
    at = x.at(score.iqm)
    parts.append(tag("line", class_=f"middle {ink('line', colour)}", x1=at, x2=at, y1=y - 10, y2=y + 10))
    parts.append(tag("text", words, x=WIDTH, y=y + 4, text_anchor="end", class_="value"))
    return Markup("").join(parts)


def learning_figures(run: Run, metric: str, title: str) -> list[Figure]:
    """One figure for each kind of step a metric was measured against."""
    y_range = SUCCESS if metric == "eval/success" else None
    figures = []
    for kind, unit in AXES.items():
        stages = run.curves(kind)
        caption = f"During {_listed([stage.name for stage in stages])}, against {unit}."
        curves = [stage_curve(stage, metric, stage.name, colour) for stage, colour in _coloured(run, stages)]
        figures.append(curve_figure(f"{title}, {kind}", caption, curves, unit, y_range))
    return [figure for figure in figures if figure]


def switch_figure(run: Run) -> Figure | None:
    """Success, or return, in the first steps after the switch, with the dip and the way back."""
    stages = run.switched
    if not stages:
        return None
    curve = stage_curve(stages[0], f"eval/{run.measure}", stages[0].name, 1).until(SWITCH_STEPS)
    if len(curve.steps) < 2 or not np.isfinite(curve.values).any():
        return None
    before = real(run.switch.get("before"))
    if math.isnan(before) and run.before and run.before.score and stages[0].start == run.before.name:
        before = run.before.score.iqm
    recovery = real(run.switch.get("recovery_env_steps"))
    low = float(np.nanmin(np.append(curve.values, before)))
    # A dip of a few per cent is what this picture is about: show the part of the axis it happens in.
    y_range = SUCCESS if low < 0.4 else (math.floor(low * 10 - 0.5) / 10, 1.02)
    caption = f"{run.measure.capitalize()} at every evaluation{' after the switch' if stages[0].start else ''}: "
    caption += "thick the interquartile mean over seeds, thin each seed."
    caption += " Shaded is what the thick line falls short of before." if math.isfinite(before) else ""
    return curve_figure(
        "The first steps online",
        caption,
        [curve],
        _since(stages[0]),
        y_range if run.measure == "success" else None,
        extras=lambda x, y: _switch_marks(curve, run.measure, before, recovery, x, y) + _rollbacks(stages[0], x, y),
    )


def switch_figures(run: Run) -> list[Figure]:
    """What the critics believed in the first steps online, and how far batches and policy went from the recording."""
    stages = run.switched
    if not stages:
        return []
    unit, stage = _since(stages[0]), stages[0]
    beliefs = [stage_curve(stage, name, words, place) for place, (name, words) in enumerate(BELIEFS.items(), 1)]
    beliefs = [curve.until(SWITCH_STEPS) for curve in beliefs]
    figures = []
    if any(np.isfinite(curve.values).any() for curve in beliefs[:-1]):
        figures.append(_value_figure(run, "Q and truth in the first steps online", "", beliefs, unit))
    for name, (title, caption) in TO_DATA.items():
        curve = stage_curve(stage, name, title.lower(), 1).until(SWITCH_STEPS)
        y_range = SUCCESS if name == "offline_share" else None
        figures.append(curve_figure(title, caption, [curve], unit, y_range))
    return [figure for figure in figures if figure]


def _since(stage: Stage) -> str:
    """What the first steps online are counted in: a stage from scratch switches from nothing."""
    return f"{AXES['online']} after the switch" if stage.start else AXES["online"]


def _rollbacks(stage: Stage, x: Axis, y: Axis) -> Markup:
    """A line wherever the guard took a seed back."""
    steps = [step for step in series(stage.rows, "guard/lr_policy")[0].tolist() if step <= x.high]
    lines = [tag("line", class_="rollback", x1=x.at(step), x2=x.at(step), y1=TOP, y2=y.start) for step in steps]
    return Markup("").join(lines)


def _switch_marks(curve: Curve, measure: str, before: float, recovery: float, x: Axis, y: Axis) -> Markup:
    parts = []
    if math.isfinite(before):
        level = min(max(y.at(before), y.end), y.start)
        xs, short = x(curve.steps), np.maximum(y(np.minimum(curve.iqm, before)), level)
        outline = "L".join(f"{px:.1f} {py:.1f}" for px, py in zip(xs, short, strict=True) if math.isfinite(py))
        parts.append(tag("path", class_="regret", d=f"M{xs[0]:.1f} {level:.1f}L{outline}L{xs[-1]:.1f} {level:.1f}Z"))
        parts.append(tag("line", class_="level", x1=x.start, x2=x.end, y1=level, y2=level))
        words = f"before the switch {rate(before) if measure == 'success' else number(before)}"
        parts.append(
            tag("text", words, x=WIDTH - RIGHT, y=level + 16 if level < y.start - 40 else level - 6, text_anchor="end")
        )
    if math.isfinite(recovery) and 0 < recovery <= x.high:
        at = x.at(recovery)
        anchor, shift = ("start", 5) if at < WIDTH * 0.6 else ("end", -5)
        parts.append(tag("line", class_="level", x1=at, x2=at, y1=TOP, y2=y.start))
        parts.append(tag("text", f"back after {recovery:,.0f} steps", x=at + shift, y=y.start - 8, text_anchor=anchor))
    return Markup("").join(parts)


def stitching_figures(run: Run) -> list[Figure]:
    """Success against the stitches needed, for each recording that was measured."""
    return [figure for found in run.stitching if (figure := _stitching_figure(found))]


def _stitching_figure(found: Json) -> Figure | None:
    policies = found.get("policies") or {}
    if not policies:
        return None
    colours = cycle(colour for colour in range(1, COLOURS) if colour != ORACLE)
    curves = [
        _by_stitches(name, colour, entry) for colour, (name, entry) in zip(colours, policies.items(), strict=False)
    ]
    curves.append(_by_stitches("oracle", ORACLE, found["oracle"]))
    scores = [f"{name} {rate(entry['score']['iqm'])}" for name, entry in policies.items() if entry.get("score")]
    caption = "Starts by the number of trajectories that must be joined; the oracle plans on the data's own moves."
    caption += f" Stitching scores: {', '.join(scores)}." if scores else ""
    return curve_figure("Success against stitches needed", caption, curves, "stitches needed", SUCCESS, whole=True)


def _by_stitches(name: str, colour: int, entry: Json) -> Curve:
    steps = [point["stitches"] for point in entry["curve"]]
    rates = [point["success"]["per_seed"] for point in entry["curve"]]
    episodes = [point["success"]["episodes"] for point in entry["curve"]]
    return Curve(name, colour, _floats(steps), _floats(rates), _floats(episodes))


def value_figures(run: Run) -> list[Figure]:
    """What each critic believed, beside what was true; then all critics in one picture."""
    figures, policies = [], []
    for kind, unit in AXES.items():
        for stage, colour in _coloured(run, run.curves(kind)):
            caption = f"During {stage.name}" + (f" ({stage.agent})." if stage.agent not in ("", stage.name) else ".")
            below = stage_curve(stage, "q_below_return", "", 1)
            if len(below.steps) and math.isfinite(share := 100 * below.values[-1].mean()):
                caption += f" In the last evaluation Q lay below the true return for {share:.0f} % of the episodes."
            curves = [stage_curve(stage, name, words, place) for place, (name, words) in enumerate(BELIEFS.items(), 1)]
            policy = stage_curve(stage, "q_policy", stage.name, colour)
            if kind == "offline" and np.isfinite(policy.values).any():
                policies.append(policy)
            if any(np.isfinite(curve.values).any() for curve in curves[:-1]):
                figures.append(_value_figure(run, f"Q and truth, {stage.name}", caption, curves, unit))
    if len(policies) > 1:
        caption = "The value each critic gives to its own policy’s actions, all offline stages."
        figures.insert(0, _value_figure(run, "Q on policy, compared", caption, policies, AXES["offline"]))
    return [figure for figure in figures if figure]


def _value_figure(run: Run, title: str, caption: str, curves: Sequence[Curve], unit: str) -> Figure | None:
    """Shades the returns that are possible at all where a curve leaves them."""
    low, high = run.return_range
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])
    if not ((values < low) | (values > high)).any():
        return curve_figure(title, caption, curves, unit)

    def possible(x: Axis, y: Axis) -> Markup:
        top, bottom = (min(max(y.at(bound), y.end), y.start) for bound in (high, low))
        return tag("rect", class_="possible", x=x.start, y=top, width=x.end - x.start, height=bottom - top)

    caption = f"{caption} Shaded: the returns that are possible.".lstrip()
    return curve_figure(title, caption, curves, unit, extras=possible)


def loss_figures(run: Run) -> list[Figure]:
    """Every loss of every stage."""
    figures = []
    for kind, unit in AXES.items():
        for stage in run.curves(kind):
            names = sorted({name for row in stage.rows for name in row if name.startswith("loss/")})
            for name in names:
                curve = stage_curve(stage, name, stage.name, 2)
                figures.append(curve_figure(f"{name.removeprefix('loss/')} loss, {stage.name}", "", [curve], unit))
    return [figure for figure in figures if figure]


def _coloured(run: Run, stages: Sequence[Stage]) -> list[tuple[Stage, int]]:
    """Stages with a colour each: the ones a reader follows first, baselines after."""
    baselines = {stage for _, stage, _ in run.baselines}
    order = sorted(stages, key=lambda stage: stage.name in baselines)
    colours = {stage.name: 1 + place % COLOURS for place, stage in enumerate(order)}
    return [(stage, colours[stage.name]) for stage in stages]


def stage_curve(stage: Stage, metric: str, name: str, colour: int) -> Curve:
    """One metric of a stage, under a name and in a colour of the page."""
    found, values = series(stage.rows, metric)
    steps = _floats(found)
    return Curve(name, colour, steps, values, stage.episodes(steps) if metric == "eval/success" else None)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _floats(array: object) -> Floats:
    return np.asarray(array, np.float64)
