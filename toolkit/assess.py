"""What `toolkit evaluate` does: a checkpoint's policies over many episodes, as numbers and, if wanted, as a film."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from toolkit import checkpoint
from toolkit.console import judged_by
from toolkit.evaluate import SHARE, EvalResult, evaluate, join, part_of
from toolkit.files import write_json
from toolkit.maze import Cell
from toolkit.policy import Policy, find_checkpoint, load_policy, trained_stages
from toolkit.processes import cores
from toolkit.stats import success_ci
from toolkit.types import Json, Progress, ToolkitError
from toolkit.video import check_video, write_video

Starts = Literal["far", "all"]

ENDS = ("best", "median", "worst")  # episodes of each seed in a film


def start_cells(policy: Policy, starts: Starts | None, where: str | Path) -> tuple[Starts, list[Cell] | None]:
    """Where episodes begin, in words and as cells; None takes far where the checkpoint knows such cells."""
    if starts is None:
        starts = "far" if policy.far_starts else "all"
    if starts == "far" and not policy.far_starts:
        raise ToolkitError(f"{where}: knows no far starts; use --starts all")
    return starts, policy.far_starts if starts == "far" else None


def evaluate_run(
    run_or_checkpoint: str | Path,
    episodes: int = 100,
    starts: Starts | None = None,
    workers: int | None = None,
    out: Path | None = None,
    video: Path | None = None,
    progress: Progress | None = None,
    until_ci: float | None = None,
) -> Json:
    """Evaluate every seed of a run or checkpoint; the same numbers whatever `workers` is.

    With `until_ci` it stops before `episodes`, as soon as the interval of success is at most so wide on each side.

    `starts` far begins in the cells that no single recorded trajectory joins to the goal, all wherever the task card
    says; None takes far where the checkpoint knows such cells. `out` is a folder for `evaluation.json`, `video` an
    .mp4 or .gif file: each seed's best, median and worst episode. Raises ToolkitError where there is no policy, or no
    far starts are known.
    """
    _make(out)
    if video is not None:
        check_video(video)
    policy = load_policy(run_or_checkpoint)
    if video is not None:
        check_video(video, policy.card)
    place = find_checkpoint(run_or_checkpoint)
    summary, result = _measure(policy, place, episodes, starts, until_ci, workers, video is not None, progress)
    _write(out, summary)  # a film may fail
    if video is not None and result.routes is not None:
        films = [[seed[place] for place in ends] for seed, ends in zip(result.routes, _ends(result), strict=True)]
        write_video(video, policy.card, films, ENDS)
        summary["video"] = str(video)
        _write(out, summary)
    return summary


def evaluate_all(
    run: str | Path,
    episodes: int = 100,
    starts: Starts | None = None,
    workers: int | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
    until_ci: float | None = None,
) -> Json:
    """The same for every checkpoint that a run, or one of its stages, keeps, in the order of training.

    All play from the same seeds, and the same episodes where all begin in the same cells: far starts are those of each
    policy's own recording. A stage keeps the checkpoint at its end and the one before.
    """
    _make(out)
    loaded = [_load(stage, place) for stage, place in _checkpoints(Path(run))]
    known = all(policy.far_starts for _, policy in loaded)
    starts = starts or ("far" if known else "all")
    for about, policy in loaded:  # before the first of them plays
        start_cells(policy, starts, about["checkpoint"])
    found: list[Json] = []
    for about, policy in loaded:
        place = Path(about["checkpoint"])
        show = part_of(progress, len(found), len(loaded))
        found.append(about | _measure(policy, place, episodes, starts, until_ci, workers, False, show)[0])
    result: Json = {"run": str(run), "task": loaded[0][1].card.name, "starts": starts, "checkpoints": found}
    _write(out, result)
    return result


def _load(stage: str, place: Path) -> tuple[Json, Policy]:
    tensors, meta = checkpoint.load(place)
    return {"stage": stage, "step": int(meta.get("step", 0)), "checkpoint": str(place)}, Policy(tensors, meta)


def _checkpoints(run: Path) -> list[tuple[str, Path]]:
    """Stage and place of every checkpoint, in the order of the pipeline."""
    folders = [(stage.name, stage / "checkpoint") for stage in trained_stages(run)]
    folders = folders or [(run.name, find_checkpoint(run))]
    return [(name, place) for name, folder in folders for place in checkpoint.kept(folder) or [folder]]


def _measure(
    policy: Policy,
    place: Path,
    episodes: int,
    starts: Starts | None,
    until_ci: float | None,
    workers: int | None,
    record: bool,
    progress: Progress | None,
) -> tuple[Json, EvalResult]:
    """Play with one checkpoint's policies and sum up."""
    starts, cells = start_cells(policy, starts, place)
    result = _play(policy, cells, episodes, until_ci, workers or cores(), record, progress)
    summary: Json = {
        "checkpoint": str(place),
        "agent": policy.agent_name,
        "task": policy.card.name,
        "seeds": policy.seeds,
        "starts": starts,
        "episodes": result.success.shape[1],
        **result.summary(),
    }
    if until_ci is not None:
        summary["until_ci"] = {"half_width": until_ci, "reached": _half_width(result) <= until_ci, "most": episodes}
    return summary, result


def _ends(result: EvalResult) -> list[list[int]]:
    """Places of each seed's best, median and worst episode: by success, then return, then steps."""
    order = np.lexsort((result.steps, -result.ret, -result.success))  # (S, n) along the last axis
    last = order.shape[1] - 1
    return [[int(row[place]) for place in (0, last // 2, last)] for row in order]


def _make(out: Path | None) -> None:
    """The folder for the results, before the time is spent that they take."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)


def _write(out: Path | None, summary: Json) -> None:
    if out is not None:
        write_json(out / "evaluation.json", summary)


def _play(
    policy: Policy,
    starts: list[Cell] | None,
    episodes: int,
    until_ci: float | None,
    workers: int,
    record: bool,
    progress: Progress | None,
) -> EvalResult:
    """All episodes, or rounds that double what was played until the interval is narrow enough.

    Few looks keep small what stopping at a lucky moment adds. Where seeds differ, those that happen to agree stop early
    and their interval is too narrow: docs/statistics.md has the measurements.
    """
    total = len(policy.seeds) * episodes
    show = None if progress is None else lambda now, _: progress(now, total)
    played: list[EvalResult] = []
    done = 0
    while done < episodes:
        until = episodes if until_ci is None else min(episodes, max(SHARE, 2 * done))
        part = evaluate(
            policy.act,
            policy.card,
            seeds=len(policy.seeds),
            episodes=until,
            starts=starts,
            workers=workers,
            record_routes=record,
            progress=show,
            first=done,
        )
        played, done = [*played, part], until
        if until_ci is not None and _half_width(join(played)) <= until_ci:
            break
    return join(played)


def _half_width(result: EvalResult) -> float:
    if np.isnan(result.success).any():
        raise ToolkitError("until-ci: this task does not say what success is; expected a number of episodes alone")
    low, high = success_ci(result.success)
    return (high - low) / 2


def table(summary: Json) -> list[str]:
    """The summary in lines for a terminal."""
    seeds = ", ".join(str(seed) for seed in summary["seeds"])
    lines = [
        f"{summary['agent']} on {summary['task']}: {summary['episodes']} episodes a seed "
        f"from {summary['starts']} starts, seeds {seeds}"
    ]
    lines.append(f"{'':14}{'iqm':>9}  {'95 % interval':<19}per seed")
    measures = {name: summary[name] for name in ("success", "return", "steps_to_goal", "path_ratio")}
    measures |= {f"success {name}": value for name, value in summary.get("tasks", {}).items()}
    for name, value in measures.items():
        low, high = (_number(bound) for bound in value["ci95"])
        per_seed = " ".join(_number(mean) for mean in value["per_seed"])
        lines.append(f"{name.replace('_', ' '):14}{_number(value['iqm']):>9}  {f'{low} to {high}':<19}{per_seed}")
    if "until_ci" in summary and not summary["until_ci"]["reached"]:
        wanted = summary["until_ci"]["half_width"]
        lines.append(f"success is not yet known to ±{wanted:g}; where the seeds differ, only more seeds narrow it")
    return lines


def curve(summary: Json) -> list[str]:
    """The summary of all checkpoints in lines for a terminal."""
    lines = [f"{summary['task']}, {summary['starts']} starts", f"{'stage':14}{'step':>9}  agent         measure"]
    for entry in summary["checkpoints"]:
        name = judged_by(entry)
        value = entry[name]
        low, high = (_number(bound) for bound in value["ci95"])
        seeds = " ".join(_number(mean) for mean in value["per_seed"])
        middle = f"{name} {_number(value['iqm'])} ({low} to {high})"
        lines.append(f"{entry['stage']:14}{entry['step']:>9,}  {entry['agent']:14}{middle:34}{seeds}")
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
