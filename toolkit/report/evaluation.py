"""The page of `toolkit evaluate --all`: every checkpoint of a run, in the order of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.console import judged_by
from toolkit.files import write_text
from toolkit.report.chart import Curve, Figure, curve_figure
from toolkit.report.figures import SUCCESS, score_rows
from toolkit.report.html import render_page
from toolkit.report.run import score
from toolkit.types import Json

PAGE = "evaluation.html"


def write_curve(found: Json, out: Path) -> Path:
    """Write what `evaluate_all` found into a folder as one page, and return its path."""
    entries = found["checkpoints"]
    measure = judged_by(entries[0])
    values = np.array([entry[measure]["per_seed"] for entry in entries], np.float64)
    places = np.arange(1.0, len(entries) + 1)
    episodes = np.array([entry["success"]["episodes"] for entry in entries], np.float64)
    rows = [(_label(entry), mark, 1) for entry in entries if (mark := score(entry[measure]))]
    figures: list[Figure | None] = [
        curve_figure(
            measure.capitalize(),
            "Interquartile mean over seeds, 95 % interval and each seed.",
            [Curve(measure, 1, places, values, episodes if measure == "success" else None)],
            "checkpoint, in the order of training",
            SUCCESS if measure == "success" else None,
            whole=True,
        ),
        score_rows("Each checkpoint", rows, measure),
    ]
    text = render_page("evaluation.html", measure, found=found, figures=[figure for figure in figures if figure])
    return write_text(out / PAGE, text)


def _label(entry: Json) -> str:
    return f"{entry['stage']}, {entry['step']:,}"
