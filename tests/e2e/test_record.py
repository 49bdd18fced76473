"""Recordings of trained stages: what the simulator said, step by step, and material for the stages after them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.kill9 import differences, fingerprint
from toolkit.data.minari import import_minari
from toolkit.pipeline.record import APART
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.stitch import by_dataset
from toolkit.policy import load_policy
from toolkit.tasks import episode_seed, load_card, make_env
from toolkit.types import Episodes, ToolkitError

pytestmark = pytest.mark.timeout(300)

RUNNER = """\
name: runner
task: halfcheetah
seeds: [3, 5]
hidden: [16]
stages:
  behaviour: {kind: online, agent: sac, env_steps: 1_100, warmup_steps: 1_060, batch_size: 32, compile: "off",
              envs: 2, eval_every: 2_000, eval_dense_until: 0, eval_episodes: 1, final_episodes: 1}
  seen: {kind: record, of: behaviour}
  medium: {kind: record, of: behaviour, env_steps: 1_500}
  clone: {kind: offline, agent: bc, data: seen, updates: 20, batch_size: 32, compile: "off", final_episodes: 1}
  played: {kind: record, of: clone, env_steps: 300}
"""


def runner(folder: Path) -> Path:
    file = folder / "runner.yaml"
    file.write_text(RUNNER, encoding="utf-8")
    run_pipeline(file, out=folder / "run", progress="none")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner(tmp_path_factory.mktemp("runner"))


def recording(run: Path, name: str) -> Episodes:
    return import_minari(run / f"data/recorded/{name}-v0").episodes


def test_recordings_are_what_the_simulator_shows(run: Path, tmp_path: Path) -> None:
    seen, medium, played = (recording(run, name) for name in ("seen", "medium", "played"))
    assert seen.lengths.tolist() == [550] * 4  # two environments of two seeds
    assert medium.lengths.tolist() == [1000, 500] * 2
    assert played.lengths.tolist() == [300] * 2
    env = make_env(load_card("halfcheetah"))
    for data, seed, begin in [(seen, 3, 0), (medium, 3 + APART, 0), (medium, 5 + APART, 1502)]:
        observation, _ = env.reset(seed=episode_seed(seed, 0, 0))
        for row in range(begin, begin + 200):
            np.testing.assert_array_equal(data.obs[row], observation["observation"].astype(np.float32))
            observation, reward, *_ = env.step(data.action[row])
            assert data.reward[row] == np.float32(reward)
    assert not medium.terminated.any()
    assert np.flatnonzero(medium.truncated).tolist() == [999, 1500, 2501, 3002]
    assert differences(fingerprint(run), fingerprint(runner(tmp_path))) == []
    assert by_dataset(run) == {"data/recorded/seen-v0": ["clone"]}


def test_a_policy_is_recorded_as_it_explores(run: Path) -> None:
    medium = recording(run, "medium")
    policy = load_policy(run / "stages/behaviour")
    greedy = policy.predict(medium.obs[:1000])[0]
    apart = np.abs(greedy - medium.action[:1000])
    assert 0.1 < apart.mean() < 1.0
    played = recording(run, "played")  # a clone that learned a standard deviation
    assert np.abs(load_policy(run / "stages/clone").predict(played.obs[:300])[0] - played.action[:300]).mean() > 0.1


def test_what_is_not_kept_cannot_be_recorded(tmp_path: Path) -> None:
    file = tmp_path / "runner.yaml"
    for old, new, message in [
        ("of: clone, env_steps: 300", "of: clone", "clone keeps nothing of what it saw"),
        ("of: behaviour}", "of: played}", "expected a stage of kind offline or online before this one"),
        ("agent: sac", "agent: gae", "behaviour keeps nothing of what it saw"),
    ]:
        file.write_text(RUNNER.replace(old, new), encoding="utf-8")
        with pytest.raises(ToolkitError, match=message):
            run_pipeline(file, out=tmp_path / "run", progress="none")
    assert not (tmp_path / "run").exists()
