"""Finished runs side by side: scores, tests between seeds, curves in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from toolkit.console import number, printable
from toolkit.files import write_text
from toolkit.report.chart import COLOURS, Figure, curve_figure
from toolkit.report.figures import AXES, SUCCESS, score_rows, stage_curve
from toolkit.report.html import render_page
from toolkit.report.run import Run, Score, Stage, read_run
from toolkit.stats import holm, paired, probability_of_improvement
from toolkit.types import Json, ToolkitError

LAST = "last stage"  # where runs have no stage of one name


@dataclass(frozen=True)
class Entry:
    """What one run has to say about a stage."""

    label: str
    run: Run
    stage: Stage
    colour: int

    @cached_property
    def score(self) -> Score:
        """Of a stage that was chosen because it has one."""
        assert self.stage.score is not None
        return self.stage.score

    @property
    def starts(self) -> tuple[str, str]:
        """Where its episodes began: a kind of start, and the far ones by name, which depend on the recording."""
        far = (self.stage.routes or {}).get("far_starts") if self.stage.starts == "far" else None
        return self.stage.starts, str(far or "")


def compare_runs(folders: Sequence[Path], out: Path | None = None) -> Json:
    """Scores of each stage that several runs have, and every other run tested against the first that has it.

    Where no name is shared, the last measured stage of each run stands for it. `out` is an .html page to write. Raises
    ToolkitError for fewer than two runs, the same one twice, no run, runs without results, other tasks.
    """
    if out is not None and out.suffix != ".html":
        raise ToolkitError(f"{out}: expected a name that ends in .html")
    runs = _read(folders)
    groups = _groups(runs)
    first = next(iter(runs.values()))
    tests = [row for name, group in groups.items() for row in _tests(name, group)]
    adjusted = holm([row["p"] for row in tests if row["p"] is not None])
    places = iter(adjusted)
    tests = [{**row, "p_holm": None if row["p"] is None else next(places)} for row in tests]
    found: Json = {
        "task": first.task,
        "measure": first.measure,
        "runs": [_about(label, folder, run) for (label, run), folder in zip(runs.items(), folders, strict=True)],
        "stages": [{"stage": name, "scores": [_score(entry) for entry in group]} for name, group in groups.items()],
        "tests": tests,
        "notes": [*_notes(groups, tests), *_versions(runs)],
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found["page"] = str(write_text(out, _page(found, runs, groups)))
    return found


def _read(folders: Sequence[Path]) -> dict[str, Run]:
    """Runs by label: the folder's name, or its path where two folders have the same."""
    if len(folders) < 2:
        raise ToolkitError(f"expected two or more run folders, got {len(folders)}")
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ToolkitError(f"expected each run once, got {', '.join(str(folder) for folder in folders)}")
    names = [place.name for place in places]
    labels = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    runs = {label: read_run(Path(folder)) for label, folder in zip(labels, folders, strict=True)}
    for label, run in runs.items():
        if not any(stage.score for stage in run.stages):
            raise ToolkitError(f"{label}: this run has no results yet; go on with `toolkit pipeline`, then compare")
    for what in ("task", "measure"):
        values = {label: getattr(run, what) for label, run in runs.items()}
        if len(set(values.values())) > 1:
            words = ", ".join(f"{label} {value}" for label, value in values.items())
            raise ToolkitError(f"expected runs of one {what}, got {words}: their numbers do not compare")
    return runs


def _groups(runs: dict[str, Run]) -> dict[str, list[Entry]]:
    """Stages with scores in more than one run, by name, in the order they first appear."""
    found: dict[str, list[Entry]] = {}
    for place, (label, run) in enumerate(runs.items()):
        for stage in run.stages:
            if stage.score:
                found.setdefault(stage.name, []).append(Entry(label, run, stage, 1 + place % COLOURS))
    shared = {name: entries for name, entries in found.items() if len(entries) > 1}
    if shared:
        return shared
    last = [(label, run, [stage for stage in run.stages if stage.score][-1]) for label, run in runs.items()]
    return {LAST: [Entry(label, run, stage, 1 + place % COLOURS) for place, (label, run, stage) in enumerate(last)]}


def _tests(name: str, group: Sequence[Entry]) -> Iterator[Json]:
    """Every other entry against the first; none where episodes began elsewhere."""
    first, *others = group
    for entry in others:
        ours, theirs = (np.array(one.score.per_seed, np.float64) for one in (entry, first))
        if entry.starts != first.starts or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            continue
        if not (len(ours) and len(theirs)):
            continue
        chance, low, high = probability_of_improvement(ours, theirs)
        row: Json = {"stage": name, "run": entry.label, "against": first.label}
        if entry.run.seeds == first.run.seeds and len(ours) == len(theirs):
            row |= {"paired": True, **paired(ours, theirs)}
            if entry.run.measure == "success" and row["p"] is not None:  # rates differ by 1 at most
                row["ci95"] = np.clip(row["ci95"], -1.0, 1.0).tolist()
        else:
            gap = float(ours.mean() - theirs.mean())
            row |= {"paired": False, "difference": gap, "ci95": [None, None], "p": None, "least_p": None}
            row |= {"seeds": min(len(ours), len(theirs))}
        yield row | {"chance": chance, "chance_ci95": [low, high]}


def _notes(groups: dict[str, list[Entry]], tests: Sequence[Json]) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    for name, group in groups.items():
        for entry in group[1:]:
            if entry.starts != group[0].starts:
                yield f"{name}: {entry.label} began its episodes elsewhere than {group[0].label}; not tested"
        if len({entry.score.episodes for entry in group}) > 1:
            words = ", ".join(f"{entry.label} {entry.score.episodes}" for entry in group)
            yield f"{name}: not the same number of episodes a seed: {words}"
    if any(not row["paired"] for row in tests):
        yield "Other seeds on both sides: no paired test, only the chance of improvement"
    least = max((row["least_p"] for row in tests if row["least_p"]), default=0.0)
    if least > 0.05:
        yield f"So few seeds cannot give a p below {least:.2g}, whatever the difference"


def _versions(runs: dict[str, Run]) -> Iterator[str]:
    """Software that differs between the runs."""
    for name in sorted({name for run in runs.values() for name in run.versions}):
        values = {str(run.versions.get(name, "unknown")) for run in runs.values()}
        if len(values) > 1:
            yield f"Not the same {name}: {', '.join(sorted(values))}"


def _about(label: str, folder: Path, run: Run) -> Json:
    about = {"run": label, "path": str(folder), "name": run.name, "description": run.description}
    return about | {"seeds": list(run.seeds), "wall_s": None if run.wall_s != run.wall_s else run.wall_s}


def _score(entry: Entry) -> Json:
    score = entry.score
    known = score.low == score.low
    return {
        "run": entry.label,
        "agent": entry.stage.agent,
        "starts": entry.stage.starts,
        "iqm": score.iqm,
        "ci95": [score.low, score.high] if known else [None, None],
        "per_seed": [None if value != value else value for value in score.per_seed],
        "episodes": score.episodes,
    }


def _page(found: Json, runs: dict[str, Run], groups: dict[str, list[Entry]]) -> str:
    measure = found["measure"]
    rows = {name: [(entry.label, entry.score, entry.colour) for entry in group] for name, group in groups.items()}
    scores = [score_rows(f"{measure.capitalize()}, {name}", entries, measure) for name, entries in rows.items()]
    learning = [_learning(name, group, measure) for name, group in groups.items()]
    return render_page(
        "compare.html",
        measure,
        found=found,
        scores=[figure for figure in scores if figure],
        learning=[figure for figure in learning if figure],
        runs=runs,
    )


def _learning(name: str, group: Sequence[Entry], measure: str) -> Figure | None:
    """Curves of one stage in all runs, against the steps of the first one's kind."""
    kinds = [entry.stage.kind for entry in group if entry.stage.kind in AXES]
    if not kinds:
        return None
    metric = f"eval/{measure}"
    same = [entry for entry in group if entry.stage.kind == kinds[0]]
    curves = [stage_curve(entry.stage, metric, entry.label, entry.colour) for entry in same]
    y_range = SUCCESS if measure == "success" else None
    return curve_figure(f"{measure.capitalize()}, {name}", "", curves, AXES[kinds[0]], y_range)


def table(found: Json) -> list[str]:
    """The numbers in lines for a terminal."""
    lines = [f"{found['task']}: {found['measure']}"]
    width = max(len(entry["run"]) for entry in found["runs"]) + 2
    tests = {(row["stage"], row["run"]): row for row in found["tests"]}
    for group in found["stages"]:
        lines.append(f"{group['stage']}")
        for entry in group["scores"]:
            low, high = (number(bound) for bound in entry["ci95"])
            words = [f"{entry['agent']:14}{number(entry['iqm']):>8}  {f'({low} to {high})':20}"]
            words += [number(value) for value in entry["per_seed"]]
            lines.append(f"  {entry['run']:{width}}{' '.join(words)}")
            if row := tests.get((group["stage"], entry["run"])):
                lines.append(f"  {'':{width}}{_words(row)}")
    return [printable(line) for line in [*lines, *(f"note: {note}" for note in found["notes"])]]


def _words(row: Json) -> str:
    """One test as a sentence."""
    low, high = row["ci95"]
    text = f"{row['difference']:+.3g} against {row['against']}"
    if low is not None:
        text += f" ({low:+.3g} to {high:+.3g}), p {row['p']:.2g} ({row['p_holm']:.2g} as one of all these tests)"
    return f"{text}; chance that it is better: {row['chance']:.2f}"
