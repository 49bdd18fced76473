"""What is refused before anything is written, once the task's sizes and the agents' networks are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit import catalog
from toolkit.agents import AGENTS
from toolkit.config import ConfigError
from toolkit.pipeline import checks
from toolkit.pipeline.estimate import planned_updates
from toolkit.pipeline.plan import make_plan
from toolkit.pipeline.spec import OnlineStage
from toolkit.tasks import load_card
from toolkit.types import Spec, ToolkitError

HEAD = "name: demo\ntask: pointmaze-medium\nstages:\n  demos: {kind: collect, recipe: stitch}\n"
OFFLINE = "  before: {kind: offline, agent: AGENT, updates: 1}\n"
ONLINE = "  after: {kind: online, agent: AGENT, env_steps: 10, start: before}\n"


@pytest.mark.parametrize("entry", catalog.entries("pipelines"), ids=lambda entry: entry.name)
def test_the_shipped_pipelines_can_be_planned(entry: catalog.Entry) -> None:
    assert make_plan(entry.path).spec.name == entry.name


def refused(tmp_path: Path, stages: str) -> str:
    (tmp_path / "p.yaml").write_text(HEAD + stages)
    with pytest.raises(ToolkitError) as caught:
        make_plan(tmp_path / "p.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_an_agent_that_needs_a_recording_alone_or_the_simulator(tmp_path: Path) -> None:
    text = refused(tmp_path, OFFLINE.replace("AGENT", "iql") + ONLINE.replace("AGENT", "bc"))
    assert text.startswith(
        "p.yaml:6: stages.after.agent: bc learns from a recording alone, and this stage is of kind online; expected"
    )
    assert "sac" in text
    assert "filtered_bc" not in text
    for agent in ("rlpd", "wsrl", "pex"):
        text = refused(tmp_path, OFFLINE.replace("AGENT", agent))
        assert text.startswith(
            f"p.yaml:5: stages.before.agent: {agent} learns in the simulator, and this stage is of kind offline"
        )


def test_an_agent_for_other_actions_or_a_goal_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(tmp_path, OFFLINE.replace("AGENT", "discrete_cql"))
    assert "before.agent: discrete_cql is for actions that are one of several choices, and this task's are num" in text
    monkeypatch.setattr(AGENTS["cql"], "goals", True)
    text = refused(tmp_path, OFFLINE.replace("AGENT", "cql"))
    assert "before.agent: cql needs a task that shows its goal, such as pointmaze-medium-shown; expected" in text
    monkeypatch.setattr(checks, "task_sizes", lambda card: Spec(4, 2, discrete=True))
    assert refused(tmp_path, OFFLINE.replace("AGENT", "iql")).endswith("expected one of discrete_cql")


def test_what_a_seam_needs(tmp_path: Path) -> None:
    alone = ONLINE.replace(", start: before", "").replace("AGENT", "pex")
    assert refused(tmp_path, alone).startswith(
        "p.yaml:5: stages.after.start: expected a stage of kind offline, whose pi"
    )
    both = (OFFLINE + ONLINE).replace("AGENT", "calql", 1).replace("AGENT", "wsrl")
    text = refused(tmp_path, both)
    assert text.startswith("p.yaml:6: stages.after: network Q cannot carry over")
    for part in ("[1, 2, ", "[1, 10, ", "config.members", "policy_layer_norm"):
        assert part in text
    waves = (OFFLINE + ONLINE).replace("AGENT", "iql", 1).replace("AGENT", "sac, config: {fourier: [6]}")
    text = refused(tmp_path, waves.replace("updates: 1", "updates: 1, config: {fourier: [3]}"))
    assert text.endswith("after.config.fourier: expected [3.0] as in before, whose networks carry over; got [6.0]")


def test_waypoints_are_places_that_the_recording_came_by(tmp_path: Path) -> None:
    alone = (HEAD + OFFLINE).replace("AGENT", "hiql").replace("pointmaze-medium", "pointmaze-medium-shown")
    (tmp_path / "p.yaml").write_text(alone)
    with pytest.raises(ToolkitError, match=r"before\.relabel: expected shares of goals to draw anew"):
        make_plan(tmp_path / "p.yaml")
    make_plan(tmp_path / "p.yaml", ["before.relabel={}"])


def test_rollouts_are_learned_from_several_times(tmp_path: Path) -> None:
    card = load_card("pointmaze-medium")
    for agent, each in (("reinforce", 1), ("gae", 10)):
        stage = OnlineStage(kind="online", agent=agent, env_steps=6_000, rollout=300)
        assert planned_updates(stage, card) == 20 * each


def test_chunks_of_numbers_no_longer_than_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(tmp_path, OFFLINE.replace("AGENT", "qc, config: {chunk: 301}"))
    assert text == "p.yaml:5: stages.before.config.chunk: expected at most the longest episode (300), got 301"
    monkeypatch.setattr(checks, "task_sizes", lambda card: Spec(4, 2, discrete=True))
    for agent in ("qc", "qc_sac"):
        assert f"{agent} is for actions that are numbers" in refused(tmp_path, OFFLINE.replace("AGENT", agent))


def test_all_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    stages = OFFLINE.replace("AGENT", "td3") + ONLINE.replace("AGENT", "bc") + "  pairs: {kind: stitch, of: [before]}\n"
    stages = stages.replace("start: before", "start: before, starts: far").replace("recipe: stitch", "recipe: arm")
    (tmp_path / "p.yaml").write_text(HEAD.replace("pointmaze-medium", "halfcheetah") + stages)
    with pytest.raises(ConfigError) as caught:
        make_plan(tmp_path / "p.yaml", ["after.guard={}"])
    places = [problem.removeprefix(f"{tmp_path}/").split(": ")[:2] for problem in caught.value.problems]
    assert places == [
        ["p.yaml:4", "stages.demos.recipe"],
        ["p.yaml:5", "stages.before.agent"],
        ["p.yaml:6", "stages.after.agent"],
        ["p.yaml:6", "stages.after.starts"],
        ["p.yaml:7", "stages.pairs"],
        ["--set after.guard={}", "stages.after.guard"],
    ]


PAIRS: list[tuple[str, str, dict[str, Any]]] = [
    ("iql", "pex", {}),
    ("bc", "pex", {}),
    ("cql", "calql", {}),
    ("iql", "rlpd", {"members": 10, "layer_norm": True}),
    ("qc", "qc", {}),
]


@pytest.mark.parametrize(("before", "after", "config"), PAIRS)
def test_what_fits(tmp_path: Path, before: str, after: str, config: dict[str, Any]) -> None:
    stages = (OFFLINE + ONLINE).replace("AGENT", before, 1).replace("AGENT", after)
    settings = ", ".join(f"{key}: {str(value).lower()}" for key, value in config.items())
    (tmp_path / "p.yaml").write_text(HEAD + stages.replace("updates: 1", f"updates: 1, config: {{{settings}}}"))
    make_plan(tmp_path / "p.yaml")
