"""Just enough SVG: escaped elements, axes with round ticks, and paths that break where a value is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from toolkit.types import Floats


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; children and attribute values are escaped, `class_` and `stroke_width` lose their underscores."""
    names = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    inside = Markup("").join(escape(child) for child in children)
    text = "".join(f' {key}="{escape(_short(value))}"' for key, value in names)
    return Markup(f"<{name}{text}>{inside}</{name}>" if inside else f"<{name}{text}/>")


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


@dataclass(frozen=True)
class Axis:
    """Maps values from [low, high] to pixels from start to end; `bend` > 0 makes it logarithmic on both sides of 0."""

    low: float
    high: float
    start: float
    end: float
    bend: float = 0.0
    whole: bool = False  # of things that are counted

    def __call__(self, values: npt.ArrayLike) -> Floats:
        """Pixels of values; NaN stays NaN."""
        low, high, at = self._bent(self.low), self._bent(self.high), self._bent(values)
        return np.asarray(self.start + (at - low) / (high - low) * (self.end - self.start))

    def at(self, value: float) -> float:
        """Pixel of one value."""
        return float(self(value))

    def _bent(self, values: npt.ArrayLike) -> Floats:
        array = np.asarray(values, np.float64)
        return np.arcsinh(array / self.bend) if self.bend else array

    def ticks(self) -> list[float]:
        """Round values inside the axis, some five of them."""
        if not self.bend:
            return _linear_ticks(self.low, self.high, 1.0 if self.whole else 0.0)
        top = max(abs(self.low), abs(self.high), 1.0)
        powers = range(math.ceil(math.log10(self.bend)), int(math.log10(top)) + 1)
        step = max(1, math.ceil(len(powers) / 3))
        sizes = [10.0**power for power in powers][::-1][::step]
        both = [-size for size in sizes] + [0.0] + sizes
        return sorted(value for value in both if self.low <= value <= self.high)


def _linear_ticks(low: float, high: float, least: float) -> list[float]:
    raw = max((high - low) / 4, least)
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_label(value: float) -> str:
    """Short: 0.5, 500, 5k, 2.5M, -10k; a dash for NaN."""
    if math.isnan(value):
        return "–"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}" if abs(value) < 1e12 else f"{value:.0e}"
    return f"{value:.4g}".replace("-", "−") if abs(value) > 1e-12 else "0"


def value_axis(values: Floats, start: float, end: float) -> Axis:
    """An axis that holds all finite values with a little room, bent where they span too many sizes to be seen."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    typical = float(np.median(np.abs(finite))) if finite.size else 1.0
    largest = max(abs(low), abs(high))
    if largest > 1000 and largest > 30 * max(typical, 1e-9):
        low, high = (min(low, 0.0) * 2, max(high, 0.0) * 2)
        return Axis(low, high, start, end, bend=10.0)
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return Axis(low - room, high + room, start, end)


def line(xs: Floats, ys: Floats) -> str:
    """Path data through the points; a missing one interrupts it."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            parts.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def area(xs: Floats, lower: Floats, upper: Floats) -> str:
    """Path data of the region between two curves; points missing in either are left out."""
    known = np.isfinite(lower) & np.isfinite(upper)
    if known.sum() < 2:
        return ""
    xs, lower, upper = xs[known], lower[known], upper[known]
    return line(np.concatenate([xs, xs[::-1]]), np.concatenate([upper, lower[::-1]])) + "Z"
