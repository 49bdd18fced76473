"""The page of a robustness sweep: one heat map in one HTML file that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from toolkit.console import judged_by, number, rate
from toolkit.report.chart import Figure
from toolkit.report.html import render_page
from toolkit.report.svg import tag, tick_label
from toolkit.types import Json

_CELL, _LEFT, _TOP = (120, 64), 110, 34  # pixels


def sweep_page(result: Json) -> str:
    """What `toolkit.sweep.sweep_run` found, as HTML."""
    measure = judged_by(result["cells"][0])
    figure = Figure(measure.capitalize(), _words(result, measure), heat_map(result, measure))
    title = f"{result['agent']}, other {' and '.join(result['factors'])}"
    return render_page("sweep.html", measure, result=result, title=title, figure=figure)


def _words(result: Json, measure: str) -> str:
    usual = ", ".join(f"{name} {value:g}" for name, value in result["usual"].items())
    return (
        f"Interquartile mean of {measure} over seeds with its 95 % interval, {result['episodes']} episodes "
        f"a seed from {result['starts']} starts, the same ones in every cell. Framed: as trained ({usual})."
    )


def heat_map(result: Json, measure: str) -> Markup:
    """One rectangle a cell, the fuller the better; the first factor downwards, the second to the right."""
    names, (width, height) = list(result["factors"]), _CELL
    rows: Sequence[float] = result["factors"][names[0]]
    columns: Sequence[float | None] = result["factors"][names[1]] if len(names) > 1 else [None]
    middles = [cell[measure]["iqm"] for cell in result["cells"]]
    low, high = (0.0, 1.0) if measure == "success" else (min(middles), max(middles))
    show = rate if measure == "success" else number
    parts = []
    for place, cell in enumerate(result["cells"]):
        row, column = divmod(place, len(columns))
        x, y = _LEFT + column * width, _TOP + row * height
        full = (middles[place] - low) / (high - low) if high > low else 1.0
        usual = all(math.isclose(cell[name], result["usual"][name]) for name in names)
        frame = "heat usual" if usual else "heat"
        parts.append(
            tag("rect", class_=f"{frame} fill1", fill_opacity=f"{0.04 + 0.5 * full:.2f}", x=x + 2, y=y + 2,
                width=width - 4, height=height - 4, rx=4)
        )  # fmt: skip
        interval = " to ".join(show(bound) for bound in cell[measure]["ci95"])
        middle = x + width / 2
        parts.append(tag("text", show(middles[place]), class_="value", x=middle, y=y + 30, text_anchor="middle"))
        parts.append(tag("text", interval, x=middle, y=y + 48, text_anchor="middle"))
    for row, value in enumerate(rows):
        words = f"{names[0]} {tick_label(value)}"
        parts.append(tag("text", words, x=_LEFT - 12, y=_TOP + (row + 0.5) * height + 4, text_anchor="end"))
    for column, right in enumerate(columns):
        words = measure if right is None else f"{names[1]} {tick_label(right)}"
        parts.append(tag("text", words, x=_LEFT + (column + 0.5) * width, y=_TOP - 12, text_anchor="middle"))
    whole = (_LEFT + len(columns) * width, _TOP + len(rows) * height)
    label = f"{measure.capitalize()} against {' and '.join(names)}: {show(min(middles))} to {show(max(middles))}"
    return tag("svg", *parts, viewBox=f"0 0 {whole[0]} {whole[1]}", width=whole[0], role="img", aria_label=label)
