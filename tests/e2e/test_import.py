"""A pipeline learns from a recording that is there already as it does from one that it collects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from toolkit.checkpoint import load
from toolkit.collect import collect
from toolkit.config import ConfigError
from toolkit.controllers import load_recipe
from toolkit.data.minari import read_minari
from toolkit.pipeline.runner import run_pipeline
from toolkit.recordings import write
from toolkit.tasks import load_card
from toolkit.types import Json, ToolkitError

pytestmark = pytest.mark.timeout(300)

PIPELINE = """\
name: own
task: pointmaze-umaze
seeds: [3]
stages:
  recording: {STAGE}
  pretrain: {kind: offline, agent: iql, updates: 20, batch_size: 32, config: {hidden: [16]}, compile: "off",
             starts: far, final_episodes: 2}
  finetune: {kind: online, agent: sac, start: pretrain, batch_size: 32, config: {hidden: [16]}, compile: "off",
             env_steps: 60, warmup_steps: 20, eval_episodes: 1, final_episodes: 2}
"""
COLLECT = "{kind: collect, recipe: stitch, episodes: 40, seed: 7, workers: 1}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a recording among its data."""
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("stitch").model_copy(update={"episodes": 40})
    collect(recipe, load_card("pointmaze-umaze"), Path("data"), seed=7, workers=1)
    return tmp_path


def play(stage: str, out: str) -> Json:
    Path("own.yaml").write_text(PIPELINE.replace("{STAGE}", stage), encoding="utf-8")
    return run_pipeline("own.yaml", out=Path(out), progress="none")


def test_it_learns_the_same_from_what_it_collects_and_from_what_is_there(here: Path) -> None:
    collected = play(COLLECT, "collected")
    for source, out in (("pointmaze/umaze-stitch-v0", "by-id"), ("data/pointmaze/umaze-stitch-v0", "by-path")):
        imported = play(f"{{kind: import, source: {source}}}", out)
        for stage in ("pretrain", "finetune"):
            ours, theirs = (load(Path(run, "stages", stage, "checkpoint"))[0] for run in (out, "collected"))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        for stage in ("recording", "pretrain", "finetune"):
            told = {k: v for k, v in imported["stages"][stage].items() if k not in ("wall_s", "kind", "dataset")}
            assert told == {k: collected["stages"][stage][k] for k in told}
    metadata = json.loads(Path("by-id/data/imported/recording-v0/data/metadata.json").read_text())
    assert metadata["toolkit"]["command"] == "import"
    assert Path("by-id/report.html").is_file()


def test_a_file_of_another_format_and_a_change_of_it(here: Path) -> None:
    episodes = read_minari("pointmaze/umaze-stitch-v0", Path("data"))
    write([episodes], "walks.hdf5", Path("data"), to="d4rl", made={})
    stage = "{kind: import, source: walks.hdf5, achieved: '0:2'}"
    first = play(stage, "run")
    assert first["stages"]["recording"]["transitions"] == episodes.transitions
    begun = Path("run/stages/pretrain/manifest.json").stat().st_mtime_ns
    play(stage, "run")
    assert Path("run/stages/pretrain/manifest.json").stat().st_mtime_ns == begun, "nothing to do again"
    write([episodes.select(range(20))], "walks.hdf5", Path("data"), to="d4rl", made={}, replace=True)
    assert play(stage, "run")["stages"]["recording"]["episodes"] == 20
    assert Path("run/stages/pretrain/manifest.json").stat().st_mtime_ns != begun


def test_what_is_not_there_or_does_not_fit_is_refused(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"own\.yaml:5: stages\.recording\.source: expected a file, or the id"):
        play("{kind: import, source: walk.hdf5}", "run")
    with pytest.raises(ConfigError, match=r"recording\.achieved"):
        play("{kind: import, source: data/pointmaze/umaze-stitch-v0, achieved: all}", "run")
    assert not Path("run").exists()
    Path("text.csv").write_text("a,b")
    with pytest.raises(ToolkitError, match=r"text\.csv: expected"):
        play("{kind: import, source: text.csv}", "run")
    recipe = load_recipe("random").model_copy(update={"episodes": 2})
    other = collect(recipe, load_card("pendulum"), Path("data"), workers=1)
    with pytest.raises(ToolkitError, match="has observations of 4 numbers; got 3"):
        play(f"{{kind: import, source: {other}}}", "run")
