"""Curves over training: middle and interval over seeds, each seed, and the values behind them for the page's hover."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from toolkit.report.svg import Axis, area, line, tag, tick_label, value_axis
from toolkit.stats import iqm, seed_ci, success_ci
from toolkit.types import Floats

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_POINTS = 240  # of a curve; more cannot be told apart


COLOURS = 12  # the page's six, then the same ones dashed


def ink(kind: str, colour: int) -> str:
    """Classes of the page for a colour from 1 to COLOURS; `kind` is fill or line."""
    return f"{kind}{1 + (colour - 1) % 6}" + (" dashed" if colour > 6 else "")


@dataclass(frozen=True)
class Curve:
    """One quantity over training: steps (n,) and values (n, S)."""

    name: str
    colour: int  # 1 to COLOURS
    steps: Floats
    values: Floats
    episodes: Floats | None = None  # (n,) where values are success rates: of so many a seed, NaN where unknown

    @cached_property
    def iqm(self) -> Floats:
        """Interquartile mean over the seeds that have a value, (n,)."""
        known = [row[np.isfinite(row)] for row in self.values]
        return np.array([iqm(row) if len(row) else np.nan for row in known], np.float64)

    @cached_property
    def interval(self) -> tuple[Floats, Floats]:
        """95 % interval of the interquartile mean, two of (n,); NaN where seeds or episodes are not known."""
        episodes = np.zeros(len(self.steps)) if self.episodes is None else self.episodes
        ends = [self._ends(row, count) for row, count in zip(self.values, episodes, strict=True)]
        low, high = np.array(ends, np.float64).reshape(-1, 2).T
        return low, high

    def _ends(self, row: Floats, episodes: float) -> tuple[float, float]:
        """That of success holds the chance of its episodes: seeds that all arrive are not certain to."""
        if not (np.isfinite(row).all() and np.isfinite(episodes)):
            return np.nan, np.nan
        if self.episodes is None:
            return seed_ci(row)
        return success_ci(np.arange(episodes) < np.rint(row * episodes)[:, None])

    def _only(self, keep: npt.NDArray[Any]) -> Curve:
        episodes = None if self.episodes is None else self.episodes[keep]
        return replace(self, steps=self.steps[keep], values=self.values[keep], episodes=episodes)

    def thinned(self) -> Curve:
        """At most `MOST_POINTS` points, the last one kept."""
        size = len(self.steps)
        keep = np.unique(np.linspace(0, size - 1, min(size, MOST_POINTS)).round().astype(int))
        return self._only(keep)

    def until(self, step: float) -> Curve:
        """The part up to a step."""
        return self._only(self.steps <= step)


@dataclass(frozen=True)
class Figure:
    """A picture with its words."""

    title: str
    caption: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()  # class of the key, text
    data: str = ""  # JSON for the page's hover


def curve_figure(
    title: str,
    caption: str,
    curves: Iterable[Curve],
    x_label: str,
    y_range: tuple[float, float] | None = None,
    extras: Callable[[Axis, Axis], Markup] | None = None,
    whole: bool = False,
) -> Figure | None:
    """Draw curves on shared axes; None where no curve has a finite value. `whole` is for steps that are counts."""
    curves = [curve.thinned() for curve in curves if np.isfinite(curve.values).any()]
    if not curves:
        return None
    steps = np.concatenate([curve.steps for curve in curves])
    first, last = float(min(steps.min(), 0)), float(steps.max())
    x = Axis(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT, whole=whole)
    everything = np.concatenate([curve.values.ravel() for curve in curves])
    y = Axis(*y_range, HEIGHT - BOTTOM, TOP) if y_range else value_axis(everything, HEIGHT - BOTTOM, TOP)
    ends = ", ".join(f"{curve.name} ends {_end(curve.iqm[-1])}" for curve in curves)
    svg = tag(
        "svg",
        _frame(x, y, x_label),
        extras(x, y) if extras else "",
        *(_draw(curve, x, y, thin=len(curves) <= 3) for curve in curves),
        tag("line", class_="cursor", y1=TOP, y2=HEIGHT - BOTTOM),
        *(tag("circle", class_=f"dot {ink('fill', curve.colour)}", r=4) for curve in curves),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title} against {x_label}: {ends}",
    )
    legend = [(ink("fill", curve.colour), curve.name) for curve in curves] if len(curves) > 1 else []
    return Figure(title, caption, svg, legend, _hover(curves, x, y, x_label))


def _end(value: float) -> str:
    return f"at {tick_label(value)}" if np.isfinite(value) else "without a value"


def _frame(x: Axis, y: Axis, x_label: str) -> Markup:
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        parts.append(tag("text", tick_label(value), x=LEFT - 8, y=at + 4, text_anchor="end"))
    for value in x.ticks():
        at = x.at(value)
        anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
        parts.append(tag("text", tick_label(value), x=at, y=HEIGHT - BOTTOM + 17, text_anchor=anchor))
    base = HEIGHT - BOTTOM
    parts.append(tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base))
    parts.append(tag("text", x_label, class_="unit", x=WIDTH - RIGHT, y=HEIGHT - 5, text_anchor="end"))
    return Markup("").join(parts)


def _draw(curve: Curve, x: Axis, y: Axis, thin: bool) -> Markup:
    xs = x(curve.steps)
    parts = []
    if band := area(xs, *(y(np.clip(side, y.low, y.high)) for side in curve.interval)):
        parts.append(tag("path", class_=f"band {ink('fill', curve.colour)}", d=band))
    if thin and curve.values.shape[1] > 1:
        for seed in range(curve.values.shape[1]):
            parts.append(tag("path", class_=f"seed {ink('line', curve.colour)}", d=line(xs, y(curve.values[:, seed]))))
    if len(xs) == 1:
        parts.append(tag("circle", class_=ink("fill", curve.colour), cx=xs.item(), cy=y(curve.iqm).item(), r=4))
    parts.append(tag("path", class_=f"mean {ink('line', curve.colour)}", d=line(xs, y(curve.iqm))))
    return Markup("").join(parts)


def _hover(curves: Sequence[Curve], x: Axis, y: Axis, x_label: str) -> str:
    """Steps, and for each curve what it is there; null where it has no value."""
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    series = []
    for curve in curves:
        low, high = curve.interval
        order = {step: place for place, step in enumerate(curve.steps.tolist())}
        places = [order.get(step) for step in steps.tolist()]
        columns = {"v": curve.iqm, "lo": low, "hi": high, "y": y(curve.iqm)}
        values = {key: [_plain(column, place) for place in places] for key, column in columns.items()}
        series.append({"name": curve.name} | values)
    return json.dumps({"unit": x_label, "step": steps.tolist(), "x": x(steps).round(1).tolist(), "series": series})


def _plain(column: Floats, place: int | None) -> float | None:
    return None if place is None or not np.isfinite(column[place]) else float(f"{column[place]:.4g}")
