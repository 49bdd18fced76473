"""A recording that passes through memory while a run learns from it, stopped and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kill9 import differences, fingerprint
from tests.e2e.stopping import run_whole, stopped_in
from toolkit.checkpoint import load
from toolkit.data.columns import columns
from toolkit.data.replay import Replay
from toolkit.data.window import Window
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.material import make_agent, prepare, task_sizes
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.windowed import prepare_window
from toolkit.tasks import load_card
from toolkit.types import ToolkitError

pytestmark = pytest.mark.timeout(300)

TRAINING = 'batch_size: 16, compile: "off", eval_episodes: 1, final_episodes: 1, log_every: 20, window: {rows: 700}'
PIPELINE = f"""\
name: window
task: pointmaze-umaze
seeds: [3, 5]
hidden: [16]
stages:
  collect: {{kind: collect, recipe: stitch, episodes: 60, workers: 1}}
  filtered_bc: {{kind: offline, agent: filtered_bc, updates: 30, {TRAINING}}}
  pretrain: {{kind: offline, agent: iql, updates: 160, eval_every: 80, {TRAINING}}}
  finetune: {{kind: online, agent: sac, start: pretrain, env_steps: 80, envs: 2, eval_every: 40, {TRAINING}}}
  chunks: {{kind: offline, agent: qc, config: {{chunk: 3}}, updates: 30, {TRAINING}}}
  evaluate: {{kind: evaluate, of: [filtered_bc, pretrain, finetune], episodes: 1, workers: 1}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return run_whole(tmp_path_factory.mktemp("window"), PIPELINE)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_stopped_in_the_middle_it_ends_in_the_same_bytes(
    whole: tuple[Path, Path], stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = whole
    copy = stopped_in(stage, file, run, tmp_path / "run", monkeypatch)
    assert 0 < load(copy / "stages" / stage / "checkpoint")[1]["step"] < 160
    run_pipeline(file, out=copy, progress="none")
    assert differences(fingerprint(run), fingerprint(copy)) == []


def test_what_a_stage_learns_from_is_what_it_would_be_in_memory(whole: tuple[Path, Path]) -> None:
    """The same episodes, starts and findings; every row that is there at some time is one of the whole recording."""
    card, dataset = load_card("pointmaze-umaze"), whole[1] / "data/pointmaze/umaze-stitch-v0"
    stages: Any = load_spec(whole[0]).stages
    for name in ("filtered_bc", "pretrain"):
        stage = stages[name]
        agent = make_agent(stage.agent, {"hidden": [8]}, task_sizes(card))
        memory = prepare(card, dataset, agent, stage.gamma)
        passing = prepare_window(card, columns(dataset), agent, stage, 700)
        assert isinstance(memory.replay, Replay) and isinstance(passing.replay, Window)
        assert passing.replay.written() == memory.replay.written()
        assert passing.replay.at(0).written() == min(700, memory.replay.written())
        assert passing.far_starts == memory.far_starts
        assert passing.findings == memory.findings
        np.testing.assert_allclose(passing.normalizer, memory.normalizer, rtol=1e-5, atol=1e-6)
        ring = passing.replay.at(50).rows[0]
        apart = np.abs(memory.replay.rows[0][:, None, :4] - ring[None, :, :4]).sum(-1).min(0)
        assert apart.max() < 1e-4


def test_a_window_as_large_as_the_recording_is_the_recording(whole: tuple[Path, Path], tmp_path: Path) -> None:
    file, run = whole
    for name, rows in (("large", "window={rows: 100_000}"), ("none", "window=null")):
        copy = Path(shutil.copytree(run, tmp_path / name))
        overrides = [f"{stage}.{rows}" for stage in ("filtered_bc", "pretrain", "finetune")]
        run_pipeline(file, out=copy, overrides=overrides, progress="none")
    for stage in ("filtered_bc", "pretrain", "finetune"):
        large, none = (tmp_path / name / "stages" / stage / "metrics.jsonl" for name in ("large", "none"))
        assert large.read_bytes() == none.read_bytes()


def test_a_window_that_no_episode_fits(whole: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole[1], tmp_path / "run"))
    with pytest.raises(ToolkitError, match=r"window\.rows: expected at least \d+, for the longest episodes; got 20"):
        run_pipeline(whole[0], out=copy, overrides=["filtered_bc.window.rows=20"], progress="none")
