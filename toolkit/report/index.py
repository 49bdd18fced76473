"""One page over all runs below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from toolkit.files import write_text
from toolkit.report.chart import Figure
from toolkit.report.figures import score_rows
from toolkit.report.html import render_page, show_score
from toolkit.report.page import write_report
from toolkit.report.run import Run, Stage, is_run, read_run
from toolkit.types import Json, ToolkitError

DEPTH = 4  # folders below the one asked for in which a run is looked for
MOST_ROWS = 40  # of a picture
INDEX = "index.html"
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One run of the index; `run` is None where it cannot be read, and `error` says why."""

    path: str  # relative to the index
    when: str  # the day and minute of its newest result
    run: Run | None
    error: str
    link: str  # to its report, empty where it has none

    @property
    def head(self) -> Stage | None:
        """The stage whose score stands for the run: the one its own report shows, else the only one measured."""
        if self.run is None:
            return None
        scored = [stage for stage in self.run.stages if stage.score]
        return self.run.after or self.run.before or (scored[0] if len(scored) == 1 else None)

    @property
    def scores(self) -> str:
        """Every measured stage with its middle."""
        if self.run is None:
            return ""
        show = show_score(self.run.measure)
        return ", ".join(f"{stage.name} {show(stage.score.iqm)}" for stage in self.run.stages if stage.score)


def report(folder: Path) -> Json:
    """The page of a run, or the index of a folder of runs; ToolkitError where it is neither."""
    if is_run(folder):
        return {"report": str(_checked(write_report, folder))}
    rows = sorted(_rows(folder), key=lambda row: row.when, reverse=True)
    if not rows:
        raise ToolkitError(f"{folder}: expected a run folder with summary.json or stages/, or a folder of runs")
    path = write_text(folder / INDEX, _page(folder, rows))
    return {"report": str(path), "runs": [_plain(row) for row in rows]}


def _rows(folder: Path) -> Iterator[Row]:
    for path in _runs_below(folder, DEPTH):
        relative = path.relative_to(folder).as_posix()
        run, error = None, ""
        try:
            run = _checked(read_run, path)
        except (ToolkitError, OSError) as problem:
            error = str(problem)
        link = quote(os.fsencode(f"{relative}/report.html")) if (path / "report.html").is_file() else ""
        yield Row(relative, _when(path), run, error, link)


def _checked(read: Callable[[Path], T], folder: Path) -> T:
    """What comes of a run folder; ToolkitError where something in it is not as a run leaves it, whatever that is."""
    try:
        return read(folder)
    except (ToolkitError, OSError):
        raise
    except Exception as problem:
        words = f"{type(problem).__name__}: {problem}"
        raise ToolkitError(f"{folder}: holds something that no run leaves there ({words})") from problem


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """Run folders, not below one another; hidden folders and links are passed by."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as found:
        names = sorted(e.name for e in found if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    for name in names:
        inner = folder / name
        if is_run(inner):
            yield inner
        elif depth > 1:
            yield from _runs_below(inner, depth - 1)


def _when(run: Path) -> str:
    files = [run / "summary.json", *run.glob("stages/*/manifest.json"), *run.glob("stages/*/metrics.jsonl")]
    times = [file.stat().st_mtime for file in files if file.is_file()]
    return datetime.fromtimestamp(max(times)).strftime("%Y-%m-%d %H:%M") if times else ""


def _plain(row: Row) -> Json:
    head = row.head
    about = {"path": row.path, "when": row.when, "report": row.link or None, "error": row.error or None}
    if row.run is None:
        return about
    score = head.score if head else None
    return about | {
        "name": row.run.name,
        "task": row.run.task,
        "measure": row.run.measure,
        "stages": [stage.name for stage in row.run.stages],
        "result": {"stage": head.name, "iqm": score.iqm} if head and score else None,
    }


def _page(folder: Path, rows: list[Row]) -> str:
    figures = [figure for key in _subjects(rows) if (figure := _figure(rows, *key))]
    return render_page("index.html", folder=folder.resolve().name, rows=rows, figures=figures, show_score=show_score)


def _subjects(rows: list[Row]) -> list[tuple[str, str]]:
    """Tasks with the measure of their runs."""
    return sorted({(row.run.task, row.run.measure) for row in rows if row.run and row.head})


def _figure(rows: list[Row], task: str, measure: str) -> Figure | None:
    same = [row for row in rows if row.run and (row.run.task, row.run.measure) == (task, measure)]
    scored = [(row.path, row.head.score, 1) for row in same if row.head and row.head.score]
    return score_rows(f"{measure.capitalize()} on {task}", scored[:MOST_ROWS], measure)
