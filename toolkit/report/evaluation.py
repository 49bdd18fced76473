"""The page of `toolkit evaluate --all`: every checkpoint of a run, in the order of training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from toolkit.report.chart import Curve, Figure, curve_figure
from toolkit.report.figures import SUCCESS, score_rows
from toolkit.report.html import render_page, write_page
from toolkit.report.run import Score
from toolkit.types import Json

PAGE = "evaluation.html"


def write_curve(found: Json, out: Path) -> Path:
    """Write what `evaluate_all` found into a folder as one page, and return its path."""
    entries = found["checkpoints"]
    measure = "success" if all(entry["success"]["iqm"] is not None for entry in entries) else "return"
    values = np.array([entry[measure]["per_seed"] for entry in entries], np.float64)
    places = np.arange(1.0, len(entries) + 1)
    episodes = np.array([entry["success"]["episodes"] for entry in entries], np.float64)
    figures: list[Figure | None] = [
        curve_figure(
            measure.capitalize(),
            "Interquartile mean over seeds, 95 % interval and each seed.",
            [Curve(measure, 1, places, values, episodes if measure == "success" else None)],
            "checkpoint, in the order of training",
            SUCCESS if measure == "success" else None,
            whole=True,
        ),
        score_rows("Each checkpoint", [(_label(entry), _score(entry[measure]), 1) for entry in entries], measure),
    ]
    text = render_page("evaluation.html", measure, found=found, figures=[figure for figure in figures if figure])
    return write_page(out / PAGE, text)


def _label(entry: Json) -> str:
    return f"{entry['stage']}, {entry['step']:,}"


def _score(value: Json) -> Score:
    low, high = (math.nan if bound is None else bound for bound in value["ci95"])
    return Score(value["iqm"], low, high, value["per_seed"], value.get("episodes"))
