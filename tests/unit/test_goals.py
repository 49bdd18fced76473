"""Goals drawn anew in a pipeline: the setting's meaning, and where it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.agents import AGENTS
from toolkit.data.replay import Goals, Relabel
from toolkit.pipeline.goals import goal_rule
from toolkit.pipeline.plan import make_plan
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.spec import OfflineStage
from toolkit.policy import load_policy
from toolkit.tasks import load_card, make_env
from toolkit.types import ToolkitError

PIPELINE = """\
name: goals
task: pointmaze-umaze-gc
seeds: [3, 5]
stages:
  collect: {kind: collect, recipe: stitch, episodes: 40, workers: 1}
  gcbc: {kind: offline, agent: bc, updates: 40, batch_size: 32, config: {hidden: [16]}, compile: "off",
         final_episodes: 2, relabel: {policy: {}}}
  gciql: {kind: offline, agent: iql, updates: 40, batch_size: 32, config: {hidden: [16]}, compile: "off",
          final_episodes: 2, relabel: {policy: {future: 0.5}}}
  her: {kind: online, agent: sac, start: gciql, env_steps: 60, batch_size: 32, config: {hidden: [16]}, compile: "off",
        final_episodes: 2, relabel: {value: {own: 0.2, current: 0, future: 0.8}}}
  hiql: {kind: offline, agent: hiql, updates: 40, batch_size: 32, config: {hidden: [16]}, compile: "off",
         final_episodes: 2, relabel: {policy: {}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "goals.yaml").write_text(PIPELINE, encoding="utf-8")
    return tmp_path / "goals.yaml"


def test_the_setting_and_its_defaults() -> None:
    card, agent = load_card("pointmaze-umaze-gc"), AGENTS["bc"](AGENTS["bc"].Config(), make_env(CARD).sizes)
    stage = {"kind": "offline", "agent": "bc", "updates": 1}
    assert goal_rule(card, OfflineStage.model_validate(stage), agent) is None
    her = Relabel(Goals(0.0, 0.2, 0.5), radius=0.45, step_reward=-1.0, goal_reward=0.0)
    assert goal_rule(card, OfflineStage.model_validate(stage | {"relabel": {"policy": None}}), agent) == her
    ogbench = goal_rule(card, OfflineStage.model_validate(stage | {"relabel": {}}), agent)
    assert ogbench == replace(her, policy=Goals(0.0, 0.0, 1.0, uniform=True))
    both = goal_rule(card, OfflineStage.model_validate(stage | {"relabel": {"policy": {"future": 0.5}}}), agent)
    assert both is not None and both.policy == Goals(0.0, 0.0, 0.5, uniform=True)


CARD = load_card("pointmaze-umaze-gc")


@pytest.mark.timeout(300)
def test_a_pipeline_that_draws_goals(file: Path, tmp_path: Path) -> None:
    summary = run_pipeline(file, out=tmp_path / "run", progress="none")
    assert summary["stages"]["her"]["switch"]
    policy = load_policy(tmp_path / "run/stages/gcbc")
    # goals are scaled as the positions they are drawn from
    np.testing.assert_allclose(policy.mean[-2:], policy.mean[:2], atol=1e-3)
    assert (load_policy(tmp_path / "run/stages/her").mean == load_policy(tmp_path / "run/stages/gciql").mean).all()


def test_refused_where_the_goal_is_not_seen(file: Path) -> None:
    with pytest.raises(
        ToolkitError, match=r"gcbc\.relabel: expected null, .* shows its goal .*; pointmaze-umaze does not"
    ):
        make_plan(file, ["task=pointmaze-umaze", "hiql.agent=bc"])


def test_refused_to_agents_that_read_recorded_returns(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AGENTS["bc"], "needs", frozenset({"mc_return"}))
    with pytest.raises(ToolkitError, match=r"gcbc\.relabel: expected null, because bc reads the recorded returns"):
        make_plan(file)


def test_waypoints_need_a_goal_that_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AGENTS["iql"], "waypoint_steps", 5)
    plain = [f"{stage}.relabel=null" for stage in ("gcbc", "gciql", "her", "hiql")]
    with pytest.raises(ToolkitError, match=r"gciql\.agent: iql needs a task that shows its goal"):
        make_plan(file, ["task=pointmaze-umaze", "hiql.agent=bc", *plain])
    plan = make_plan(file, plain)
    agent = AGENTS["iql"](AGENTS["iql"].Config(), make_env(CARD).sizes)
    assert goal_rule(plan.card, plan.spec.stages["gciql"], agent) == Relabel(Goals(own=1.0), 0.45, -1.0, 0.0)


def test_places_are_for_mazes(tmp_path: Path) -> None:
    file = tmp_path / "arm.yaml"
    file.write_text(
        "name: arm\ntask: fetch-reach\nstages:\n  collect: {kind: collect, recipe: arm, episodes: 2}\n"
        "  hiql: {kind: offline, agent: hiql, updates: 1, config: {places: true}, relabel: {}}\n",
        encoding="utf-8",
    )
    with pytest.raises(ToolkitError, match=r"hiql: places: true is for mazes, .*; expected false"):
        make_plan(file, [])
