"""A whole pipeline, small: what it leaves, what it skips, how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import minari
import pytest

from benchmarks.kill9 import differences, fingerprint
from tests.e2e.stopping import asked_to_stop
from toolkit.checkpoint import exists, load
from toolkit.evaluate import evaluate
from toolkit.pipeline import runner
from toolkit.pipeline.folder import RunFolder
from toolkit.pipeline.ope import rank_runs
from toolkit.pipeline.ope import table as ranking
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.stitch import stitch_runs
from toolkit.pipeline.summary import versions
from toolkit.policy import load_policy
from toolkit.types import Json, ToolkitError

pytestmark = pytest.mark.timeout(300)  # processes of their own, on machines that may be busy

ROOT = Path(__file__).parents[2]
PIPELINE = """\
name: tiny
description: Every kind of stage
task: pointmaze-umaze
seeds: [3, 5]
stages:
  collect: {kind: collect, recipe: stitch, episodes: 60, workers: 1}
  clone: {kind: offline, agent: bc, updates: 40, batch_size: 32, config: {hidden: [16]}, compile: "off",
          final_episodes: 2, starts: far, log_every: 20}
  pretrain: {kind: offline, agent: iql, updates: 120, batch_size: 32, n_step: 5, config: {hidden: [16]}, compile: "off",
             eval_every: 60, eval_episodes: 1, final_episodes: 2, starts: far, log_every: 20,
             checkpoint_every_s: 0.05}
  finetune: {kind: online, agent: sac, start: pretrain, batch_size: 32, config: {hidden: [16]}, compile: "off",
             seam: {temperature: 0.05}, env_steps: 300, envs: 2, utd: 2, warmup_steps: 60, buffer_capacity: 150,
             eval_every: 100, eval_episodes: 1, final_episodes: 2, starts: far, log_every: 20,
             checkpoint_every_s: 0.05}
  evaluate: {kind: evaluate, of: [pretrain, finetune], episodes: 2, starts: far}
  stitch: {kind: stitch, of: [clone, finetune], episodes: 2, workers: 1}
"""
STAGES = ["collect", "clone", "pretrain", "finetune", "evaluate", "stitch"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pipeline") / "tiny.yaml"
    file.write_text(PIPELINE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def whole(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    """A run that nobody disturbed; tests copy it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return run, run_pipeline(pipeline, out=run, progress="none")


@pytest.fixture
def copy(whole: tuple[Path, Json], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def times(run: Path) -> dict[str, int]:
    """When each stage was finished."""
    return {name: (run / "stages" / name / "manifest.json").stat().st_mtime_ns for name in STAGES}


def redone(before: dict[str, int], run: Path) -> list[str]:
    return [name for name, moment in times(run).items() if moment != before[name]]


def test_summary_holds_what_machines_read(whole: tuple[Path, Json]) -> None:
    run, summary = whole
    assert json.loads((run / "summary.json").read_text()) == summary
    assert list(summary["stages"]) == STAGES
    for name in ("clone", "pretrain", "finetune", "evaluate"):
        success = summary["stages"][name]["success"]
        assert success.keys() == {"iqm", "ci95", "per_seed", "episodes"}
        assert len(success["per_seed"]) == 2
        assert success["episodes"] == 2
        assert "path_ratio" in summary["stages"][name]
        assert summary["stages"][name]["wall_s"] > 0
    assert summary["baselines"]["bc"]["success"] == summary["stages"]["clone"]["success"]
    assert list(summary["baselines"]) == ["bc"]
    assert {"dip", "recovery_env_steps", "regret", "before"} <= summary["switch"].keys()
    assert summary["seeds"] == [3, 5]
    assert summary["peak_rss_mb"] > 50
    assert summary["wall_s"] >= sum(stage["wall_s"] for stage in summary["stages"].values()) - 0.1
    assert {"toolkit", "python", "torch"} <= summary["versions"].keys()
    assert summary["stages"]["evaluate"]["of"]["finetune"].keys() == {"far", "all"}
    stitching = summary["stages"]["stitch"]["stitching"]
    assert list(stitching["policies"]) == ["clone", "finetune"]
    assert len(stitching["oracle"]["curve"]) == len(stitching["groups"]) >= 2


def test_run_folder_is_complete(whole: tuple[Path, Json]) -> None:
    run, _ = whole
    dataset = minari.MinariDataset(run / "data/pointmaze/umaze-stitch-v0/data")
    assert dataset.total_episodes == 60
    assert "Content-Security-Policy" in (run / "report.html").read_text()
    assert {"offline", "online"} == {path.name for path in (run / "tensorboard").iterdir()}
    assert list(run.rglob("events.out.tfevents.*"))
    assert len(json.loads((run / "stages/collect/pieces.json").read_text())["pieces"]) > 50
    for name in ("pretrain", "finetune", "evaluate"):
        routes = json.loads((run / "stages" / name / "routes.json").read_text())
        assert routes["far_starts"]
        assert {route["seed"] for route in routes["routes"]} == {3, 5}


def test_the_switch_is_the_offline_policy(whole: tuple[Path, Json]) -> None:
    def evaluations(stage: str) -> list[Json]:
        rows = map(json.loads, (whole[0] / "stages" / stage / "metrics.jsonl").read_text().splitlines())
        return [row for row in rows if "eval/success" in row]

    assert [row["step"] for row in evaluations("pretrain")] == [0, 60, 120]
    assert [row["step"] for row in evaluations("finetune")] == [0, 100, 200, 300]
    offline, online = load_policy(whole[0] / "stages/pretrain"), load_policy(whole[0] / "stages/finetune")
    assert (offline.mean == online.mean).all()
    assert (offline.std == online.std).all()
    assert offline.far_starts == online.far_starts != []


def test_resolved_pipeline_runs_to_the_same_keys(whole: tuple[Path, Json], copy: Path) -> None:
    before = times(copy)
    run_pipeline(copy / "pipeline.yaml", out=copy, progress="none")
    assert redone(before, copy) == []


def test_a_change_reruns_what_follows_from_it(pipeline: Path, copy: Path) -> None:
    before = times(copy)
    run_pipeline(pipeline, out=copy, overrides=["finetune.utd=1"], progress="none")
    assert redone(before, copy) == ["finetune", "evaluate", "stitch"]
    assert "utd: 1" in (copy / "pipeline.yaml").read_text()


def test_a_folder_belongs_to_one_pipeline_and_task(pipeline: Path, copy: Path, tmp_path: Path) -> None:
    before = times(copy)
    other = tmp_path / "other.yaml"
    other.write_text(pipeline.read_text().replace("name: ", "name: other-"))
    with pytest.raises(ToolkitError, match=r"holds a run of .* choose another --out"):
        run_pipeline(other, out=copy, progress="none")
    assert redone(before, copy) == []
    lines = run_pipeline(pipeline, out=copy, overrides=["finetune.utd=1"], dry_run=True)["lines"]
    assert [line.split()[0] for line in lines if "other settings" in line] == ["finetune", "evaluate", "stitch"]


def test_a_stage_without_a_policy_is_told_from_damage(whole: tuple[Path, Json]) -> None:
    with pytest.raises(ToolkitError, match=r"leaves no policy; stages of the run that do: clone, pretrain, finetune$"):
        load_policy(whole[0] / "stages/collect")


def test_from_reruns_a_tail_to_the_same_bytes(
    pipeline: Path, copy: Path, whole: tuple[Path, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off too, when the command without it goes on."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = times(copy)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_stage", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(pipeline, out=copy, start_from="finetune", progress="none")
    run_pipeline(pipeline, out=copy, progress="none")
    assert redone(before, copy) == ["finetune", "evaluate", "stitch"]
    assert differences(fingerprint(whole[0]), fingerprint(copy)) == []
    with pytest.raises(ToolkitError, match="did you mean 'finetune'"):
        run_pipeline(pipeline, out=copy, start_from="finetuning")


def test_a_damaged_output_is_made_anew(pipeline: Path, copy: Path, whole: tuple[Path, Json]) -> None:
    data = copy / "data/pointmaze/umaze-stitch-v0/data/main_data.hdf5"
    data.write_bytes(data.read_bytes()[:-1])
    (copy / "stages/evaluate/routes.json").unlink()
    metrics = copy / "stages/pretrain/metrics.jsonl"  # of a stage whose last checkpoint is whole
    metrics.write_text(metrics.read_text().replace('"eval/success": [', '"eval/success": [ '))
    before = times(copy)
    run_pipeline(pipeline, out=copy, progress="none")
    assert redone(before, copy) == ["collect", "pretrain", "evaluate"]
    assert differences(fingerprint(whole[0]), fingerprint(copy)) == []


@contextmanager
def killed(run: Path, stage: str, number: signal.Signals) -> Iterator[None]:
    """This process gets a signal as soon as the stage has a checkpoint."""

    def send() -> None:
        while not exists(run / "stages" / stage / "checkpoint") and not done.wait(0.005):
            pass
        if not done.is_set():
            os.kill(os.getpid(), number)

    done = threading.Event()
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("stage", "number", "raised", "code"),
    [("pretrain", signal.SIGTERM, SystemExit, 143), ("finetune", signal.SIGINT, KeyboardInterrupt, None)],
)
def test_stopped_and_resumed_ends_in_the_same_bytes(
    stage: str, number: signal.Signals, raised: type[BaseException], code: Any, copy: Path, pipeline: Path,
    whole: tuple[Path, Json],
) -> None:  # fmt: skip
    shutil.rmtree(copy / "stages" / stage)
    with pytest.raises(raised) as caught, killed(copy, stage, number):
        run_pipeline(pipeline, out=copy, progress="none")
    assert getattr(caught.value, "code", None) == code
    assert not (copy / "stages" / stage / "manifest.json").exists()
    assert not (copy / "summary.json").exists()
    run_pipeline(pipeline, out=copy, progress="none")
    assert differences(fingerprint(whole[0]), fingerprint(copy)) == []


def test_stopped_in_an_evaluation_it_plays_that_one_first(
    pipeline: Path, copy: Path, whole: tuple[Path, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "stages/finetune")
    monkeypatch.setattr("toolkit.pipeline.watch.evaluate", asked_to_stop(evaluate))
    with pytest.raises(SystemExit):
        run_pipeline(pipeline, out=copy, progress="none")
    _, meta = load(copy / "stages/finetune/checkpoint")
    assert meta["evaluation_due"]
    assert meta["step"] == 100
    run_pipeline(pipeline, out=copy, progress="none")
    assert differences(fingerprint(whole[0]), fingerprint(copy)) == []


def test_what_other_software_resumes_is_said_to_differ(
    pipeline: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "stages" / "finetune")
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.pipeline.watch.evaluate", asked_to_stop(evaluate))
        patch.setattr("toolkit.pipeline.watch.versions", lambda: versions() | {"torch": "2.10.0"})
        with pytest.raises(SystemExit):
            run_pipeline(pipeline, out=copy, progress="none")
    capsys.readouterr()
    run_pipeline(pipeline, out=copy, progress="plain")
    said = "".join(capsys.readouterr())
    assert f"the same last bits as without the stop; it began with torch 2.10.0, now {versions()['torch']}\n" in said


def test_another_agent_brings_its_own_settings(pipeline: Path, tmp_path: Path) -> None:
    for overrides in (["clone.agent=cql", "clone.config.gap=5.0"], ["pretrain.agent=cql"]):
        run_pipeline(pipeline, out=tmp_path / "run", overrides=overrides, dry_run=True)
    with pytest.raises(ToolkitError, match="network Q cannot carry over"):
        run_pipeline(pipeline, out=tmp_path / "run", overrides=["pretrain.config.hidden=[8]"], dry_run=True)


def command(pipeline: Path, run: Path) -> subprocess.Popen[str]:
    """The command a user types."""
    arguments = [sys.executable, "-m", "toolkit", "pipeline", str(pipeline), "--out", str(run), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_checkpoint(run: Path, stage: str) -> None:
    deadline = time.monotonic() + 200
    while not exists(run / "stages" / stage / "checkpoint"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_run_a_folder_and_sigterm_leaves_with_143(pipeline: Path, copy: Path, whole: tuple[Path, Json]) -> None:
    shutil.rmtree(copy / "stages/pretrain")
    slow = pipeline.with_name("slow.yaml")
    slow.write_text(PIPELINE.replace("updates: 120", "updates: 100_000"), encoding="utf-8")
    with command(slow, copy) as process:
        wait_for_checkpoint(copy, "pretrain")
        with pytest.raises(ToolkitError, match=f"pid {process.pid} ") as caught:
            run_pipeline(pipeline, out=copy, progress="none")
        assert caught.value.exit_code == 1
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
        assert time.monotonic() - begun < 5
    # the lock went with its process, and the folder serves the other pipeline again
    run_pipeline(pipeline, out=copy, progress="none")
    assert differences(fingerprint(whole[0]), fingerprint(copy)) == []


def test_kill_minus_nine_and_the_same_command_again(pipeline: Path, copy: Path, whole: tuple[Path, Json]) -> None:
    shutil.rmtree(copy / "stages/finetune")
    with command(pipeline, copy) as process:
        wait_for_checkpoint(copy, "finetune")
        process.kill()
    assert not (copy / "summary.json").exists()
    run_pipeline(pipeline, out=copy, progress="none")
    assert differences(fingerprint(whole[0]), fingerprint(copy)) == []


def test_nothing_is_written_before_all_is_checked(pipeline: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    faults = {
        "finetune.config.members=10": "network Q cannot carry over",
        "pretrain.config.expectil=0.7": "did you mean 'expectile'",
        "clone.agent=filterd_bc": "did you mean 'filtered_bc'",
        "collect.recipe=stich": "stitch",
        "finetune.warmup_steps=300": "less than env_steps",
    }
    for override, message in faults.items():
        with pytest.raises(ToolkitError, match=message):
            run_pipeline(pipeline, out=run, overrides=[override], progress="none")
        assert not run.exists()
    plan = run_pipeline(pipeline, out=run, dry_run=True)
    assert not run.exists()
    assert [stage["stage"] for stage in plan["stages"]] == STAGES
    assert plan["seconds"] > 0
    assert len(plan["lines"]) == len(STAGES) + 2


def test_a_folder_with_other_things_in_it_is_refused(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ToolkitError, match="holds files but no run"):
        run_pipeline(pipeline, out=tmp_path, progress="none")


def test_without_out_the_same_command_goes_on_with_the_unfinished_run(
    pipeline: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    copy.rename("runs/tiny-4")
    assert run_pipeline(pipeline, dry_run=True)["out"] == "runs/tiny-5"
    assert run_pipeline(pipeline, start_from="evaluate", dry_run=True)["out"] == "runs/tiny-4"
    Path("runs/tiny-4/summary.json").unlink()  # and a page of what there is, as `toolkit report` makes it
    assert run_pipeline(pipeline, dry_run=True)["out"] == "runs/tiny-4"
    assert run_pipeline(pipeline, overrides=["finetune.utd=1"], dry_run=True)["out"] == "runs/tiny-5"


def test_stitching_of_a_finished_run(copy: Path) -> None:
    found = stitch_runs([copy], episodes=1, workers=1)
    assert list(found["runs"][0]["policies"]) == ["clone", "pretrain", "finetune"]
    assert json.loads((copy / "stitch.json").read_text()) == found
    page = (copy / "report.html").read_text()
    assert "Success against stitches needed" in page
    assert "Pieces of one route" in page
    assert stitch_runs([copy], episodes=1, workers=1, out=copy / "elsewhere") == found
    RunFolder(copy).begin("evaluate")  # what was measured of a finished run goes with it
    assert not (copy / "stitch.json").exists()
    shutil.rmtree(copy / "stages")
    with pytest.raises(ToolkitError, match="expected a run with a finished"):
        stitch_runs([copy])


def test_ranking_of_a_finished_run_without_its_simulator(copy: Path) -> None:
    found = rank_runs([copy], updates=5)
    rows = found["policies"]
    assert {(row["stage"], row["seed"]) for row in rows} == {
        (stage, seed) for stage in ("clone", "pretrain", "finetune") for seed in (3, 5)
    }
    assert [row["estimate"] for row in rows] == sorted((row["estimate"] for row in rows), reverse=True)
    assert found["gamma"] == 0.99
    assert found["regret"] == max(row["return"] for row in rows) - rows[0]["return"] >= 0
    elsewhere = rank_runs([copy], data=str(copy / "data/pointmaze/umaze-stitch-v0"), updates=5)
    assert elsewhere == found
    assert len(ranking(found)) == len(rows) + 2
