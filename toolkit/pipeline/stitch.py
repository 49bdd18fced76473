"""Success against stitches needed: as a stage of a pipeline, and of runs that are finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.evaluate import Act
from toolkit.files import read_json, write_json
from toolkit.pipeline.context import Context
from toolkit.pipeline.folder import MANIFEST, REPORT, STITCHES
from toolkit.pipeline.spec import StitchStage
from toolkit.policy import Policy, load_policy, stage_names
from toolkit.processes import cores
from toolkit.recordings import read_places
from toolkit.report import write_report
from toolkit.stitch_score import Ladder, measure, plays
from toolkit.tasks import relabel
from toolkit.types import Json, Progress, ToolkitError


def run_stitch(context: Context, name: str, stage: StitchStage) -> Json:
    """Measure each named stage's policy; the figures' part lies beside the manifest."""
    plan = context.plan
    source = plan.spec.data_of(stage.of[0])
    assert source is not None, "load checks it"
    ladder = Ladder(plan.card, relabel(plan.card, read_places(plan.dataset(context.folder.data, source))))
    policies: dict[str, Act] = {of: load_policy(context.checkpoint(of)).act for of in stage.of}
    seeds, workers = len(context.seeds), cores() if stage.workers == "auto" else stage.workers
    context.console.stage_started(name, plays(ladder, policies, seeds, stage.episodes), "episodes")
    found = measure(ladder, policies, seeds, stage.episodes, workers, lambda done, _: context.console.advance(done))
    write_json(context.folder.stage(name) / STITCHES, found)
    return {"stitching": {key: value for key, value in found.items() if key != "example"}}


def stitch_runs(
    runs: Sequence[Path],
    episodes: int = 50,
    workers: int | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Json:
    """The same for every finished training stage of runs, each on the recording it learned from.

    Writes `stitch.json` into each run and its report anew; with `out` all into that folder, and nothing else. Raises
    ToolkitError where a run has no trained stage with a recording of its own.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    jobs = [(run, *job) for run in runs for job in _jobs(Path(run))]
    counts = [plays(ladder, acts, seeds, episodes) for _, ladder, acts, seeds in jobs]
    found: list[Json] = []
    for run, ladder, acts, seeds in jobs:

        def show(done: int, _: int, before: int = sum(counts[: len(found)])) -> None:
            if progress is not None:
                progress(before + done, sum(counts))

        found.append({"run": str(run), **measure(ladder, acts, seeds, episodes, workers or cores(), show)})
    if out is not None:
        write_json(out / STITCHES, {"runs": found})
        return {"runs": found}
    for run in runs:
        write_json(Path(run) / STITCHES, {"runs": [entry for entry in found if entry["run"] == str(run)]})
        if (Path(run) / REPORT).is_file():
            write_report(run)
    return {"runs": found}


def _jobs(run: Path) -> Iterator[tuple[Ladder, dict[str, Act], int]]:
    """For each recording that stages of the run learned from: its groups, the stages' policies, the number of seeds."""
    for dataset, stages in by_dataset(run).items():
        policies = {name: load_policy(run / "stages" / name) for name in stages}
        first: Policy = next(iter(policies.values()))
        ladder = Ladder(first.card, relabel(first.card, read_places(run / dataset)))
        yield ladder, {name: policy.act for name, policy in policies.items()}, len(first.seeds)


def by_dataset(run: Path) -> dict[str, list[str]]:
    """Training stages that are done, by the path of the recording each learned from, in the order of its pipeline."""
    manifests = {path.parent.name: read_json(path) or {} for path in (run / "stages").glob(f"*/{MANIFEST}")}
    found: dict[str, list[str]] = {}
    for name in stage_names(run):
        dataset = _dataset(name, manifests)
        if manifests.get(name, {}).get("kind") in ("offline", "online") and dataset is not None:
            found.setdefault(dataset, []).append(name)
    if not found:
        raise ToolkitError(
            f"{run}: expected a run with a finished offline or online stage that learned from a recording in it"
        )
    return found


def _dataset(name: str, manifests: dict[str, Json]) -> str | None:
    """The recording a stage goes back to, as the stage that left it noted it."""
    manifest = manifests.get(name, {})
    if dataset := (manifest.get("result") or {}).get("dataset"):
        return str(dataset)
    sources = (_dataset(source, manifests) for source in reversed(manifest.get("inputs", [])))
    return next((dataset for dataset in sources if dataset is not None), None)
