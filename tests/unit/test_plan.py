"""What is refused before anything is written, once the task's sizes and the agents' networks are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit import catalog
from toolkit.agents import AGENTS
from toolkit.pipeline import plan as planning
from toolkit.pipeline.plan import make_plan
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
    return str(caught.value)


def test_an_agent_that_needs_a_recording_alone_or_the_simulator(tmp_path: Path) -> None:
    text = refused(tmp_path, OFFLINE.replace("AGENT", "iql") + ONLINE.replace("AGENT", "bc"))
    assert text.startswith("after.agent: bc learns from a recording alone, and this stage is of kind online; expected")
    assert "sac" in text
    assert "filtered_bc" not in text
    for agent in ("rlpd", "wsrl", "pex"):
        text = refused(tmp_path, OFFLINE.replace("AGENT", agent))
        assert text.startswith(f"before.agent: {agent} learns in the simulator, and this stage is of kind offline")


def test_an_agent_for_other_actions_or_a_goal_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(tmp_path, OFFLINE.replace("AGENT", "discrete_cql"))
    assert "before.agent: discrete_cql is for actions that are one of several choices, and this task's are num" in text
    monkeypatch.setattr(AGENTS["cql"], "goals", True)
    text = refused(tmp_path, OFFLINE.replace("AGENT", "cql"))
    assert "before.agent: cql needs to see the goal, and this task does not show it (goal.observed: false)" in text
    monkeypatch.setattr(planning, "task_sizes", lambda card: Spec(4, 2, discrete=True))
    assert refused(tmp_path, OFFLINE.replace("AGENT", "iql")).endswith("expected one of discrete_cql")


def test_what_a_seam_needs(tmp_path: Path) -> None:
    alone = ONLINE.replace(", start: before", "").replace("AGENT", "pex")
    assert refused(tmp_path, alone).startswith("after.start: expected a stage of kind offline, whose pi pex takes over")
    both = (OFFLINE + ONLINE).replace("AGENT", "calql", 1).replace("AGENT", "wsrl")
    text = refused(tmp_path, both)
    for part in ("network Q cannot carry over", "[1, 2, ", "[1, 10, ", "after.config.members", "policy_layer_norm"):
        assert part in text


def test_chunks_of_numbers_no_longer_than_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(tmp_path, OFFLINE.replace("AGENT", "qc, config: {chunk: 301}"))
    assert text == "before.config.chunk: expected at most the longest episode (300), got 301"
    monkeypatch.setattr(planning, "task_sizes", lambda card: Spec(4, 2, discrete=True))
    for agent in ("qc", "qc_sac"):
        assert f"{agent} is for actions that are numbers" in refused(tmp_path, OFFLINE.replace("AGENT", agent))


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
